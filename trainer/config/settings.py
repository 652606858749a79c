"""The settings of data and fitting: `[data]` and `[fit]` of a training config."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Natural = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Part = Annotated[float, Meta(ge=0, lt=1)]
Rate = Annotated[float, Meta(gt=0)]


class Augmentation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Random changes of the training images; masks and boxes move along.

    shift: largest shift in pixels (or samples, voxels) along each side, mirrored at the edges.
    flip: which sides are mirrored in half of the images; "horizontal" is the last side, then "vertical", "depth".
    turn: a random multiple of 90 degrees in the plane of the last two sides, which must be equal.
    rotate: largest turn in degrees, either way (pictures only). zoom: largest change of size, 0.1 is ± 10 %.
    brightness, contrast, noise: largest change of brightness and of contrast, and standard deviation of added
        noise, as parts of the input's range.
    """

    shift: Natural = 0
    flip: list[Literal["horizontal", "vertical", "depth"]] = []
    turn: bool = False
    rotate: Annotated[float, Meta(ge=0, le=180)] = 0.0
    zoom: Part = 0.0
    brightness: Part = 0.0
    contrast: Part = 0.0
    noise: Part = 0.0

    @property
    def changes(self) -> bool:
        """Whether any image is changed at all."""
        return any(getattr(self, name) for name in Augmentation.__struct_fields__)


class DataSettings(Augmentation, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the examples are, how they are split, and how training images are augmented.

    folder: the image folder, relative to the config's own folder.
    table: in it, `file_name` plus a column per target, as CSV, JSON lines or Parquet. Left out, it is
        metadata.csv, metadata.jsonl or metadata.parquet; without any, folders named after the classes of a single
        class head hold the images, themselves in folders train, validation and test or not.
    features: columns that are the input, in order, for a model of feature vectors; without files then.
    split: the column that says train, validation or test; left out, `split` if there is one, else a seeded
        split in which validation and test are these parts.
    group: a column whose equal values never come into two splits (patient, site, video …).
    """

    folder: str
    table: str = ""
    features: list[str] = []
    split: str = ""
    group: str = ""
    validation: Annotated[float, Meta(gt=0, lt=1)] = 0.1
    test: Part = 0.1


class FitSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the model is fitted.

    kl_weight: of KL / N in the loss; below 1 the posterior is tempered, and the model card says so.
    kl_warmup: part of the steps over which that weight rises from 0.
    draws: of the weights per step; their log-likelihoods are averaged.
    learning_rate: highest; a cosine falls to 0 after `warmup`, a part of the steps.
    clip: largest norm of the gradient.
    average: part of the epochs, at the end, whose weights are averaged (Izmailov et al. 2018); 0 takes the last ones.
    loss_weights: of the heads, besides each one's own `weight`: "fixed" to it, or "learned" from each head's noise
        (Kendall et al. 2018).
    l1, l2: penalties on the deterministic kernels, per absolute value and per square.
    patience: epochs without a better validation ELBO after which the fit stops and takes the best weights; 0
        fits all epochs and takes the last ones.
    precision: of activations; weights, densities and the saved model stay float32.
    checkpoint: steps between two checkpoints; 0 is an epoch.
    """

    epochs: Positive = 30
    batch: Positive = 64
    learning_rate: Rate = 1e-3
    warmup: Fraction = 0.05
    clip: Rate = 10.0
    kl_weight: Annotated[float, Meta(ge=0)] = 1.0
    kl_warmup: Fraction = 0.3
    draws: Positive = 1
    average: Fraction = 0.0
    loss_weights: Literal["fixed", "learned"] = "fixed"
    l1: Annotated[float, Meta(ge=0)] = 0.0
    l2: Annotated[float, Meta(ge=0)] = 0.0
    patience: Natural = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    checkpoint: Natural = 0
