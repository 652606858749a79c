"""The settings of data and fitting: `[data]` and `[fit]` of a training config."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

NaturalInt = Annotated[int, Meta(ge=0)]
PositiveInt = Annotated[int, Meta(ge=1)]
PositiveFloat = Annotated[float, Meta(gt=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
FractionBelowOne = Annotated[float, Meta(ge=0, lt=1)]


class Augmentation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Random changes of the training images; masks and boxes change with them.

    shift: largest shift in pixels (or samples, voxels) along each side; the image is mirrored at its edges.
    flip: the sides that are mirrored in half of the images; "horizontal" is the last side, then "vertical", "depth".
    turn: rotate by a random multiple of 90 degrees in the plane of the last two sides, which must be equal.
    rotate: largest rotation in degrees, in either direction (pictures only).
    zoom: largest change of size; 0.1 means ± 10 %.
    brightness, contrast: largest change, as a fraction of the input's range.
    noise: standard deviation of added noise, as a fraction of the input's range.
    photometric: share of the images that get a random mix of brightness, contrast, blur or sharpening, smooth texture
        and pixel noise; "auto" is a quarter where every head tells classes of whole pictures with a known range,
        else 0.
    """

    shift: NaturalInt = 0
    flip: list[Literal["horizontal", "vertical", "depth"]] = []
    turn: bool = False
    rotate: Annotated[float, Meta(ge=0, le=180)] = 0.0
    zoom: FractionBelowOne = 0.0
    brightness: FractionBelowOne = 0.0
    contrast: FractionBelowOne = 0.0
    noise: FractionBelowOne = 0.0
    photometric: Fraction | Literal["auto"] = 0.0

    @property
    def changes(self) -> bool:
        """Whether any change is switched on."""
        return any(getattr(self, name) for name in Augmentation.__struct_fields__)


class DataSettings(Augmentation, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the examples are, how they are split, and how training images are augmented.

    folder: the image folder, relative to the config's own folder.
    table: a file in the folder with `file_name` and a column per target, as CSV, JSON lines or Parquet. By default
        metadata.csv, metadata.jsonl or metadata.parquet. If there is none, the images lie in folders named after the
        classes of a single class head; these may lie in folders named train, validation and test.
    features: the columns that are the input, in order, for a model of feature vectors; the table then names no files.
    split: the column that holds train, validation or test. By default `split` if there is one, else a seeded
        split in which validation and test have the fractions below.
    group: a column (patient, site, video …); rows with the same value are never in two splits.
    stratify: a column (classes); a seeded split has each of its values in every split, in the shares below as far as
        their rows allow: of two rows one trains, of three each is in another split.
    validation, test: fractions of the examples.
    """

    folder: str
    table: str = ""
    features: list[str] = []
    split: str = ""
    group: str = ""
    stratify: str = ""
    validation: Annotated[float, Meta(gt=0, lt=1)] = 0.1
    test: FractionBelowOne = 0.1
    photometric: Fraction | Literal["auto"] = "auto"


class FitSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the model is fitted.

    epochs: passes over the training examples; "auto" is 30, or as many more as make 1,000 steps, at most 300.
    kl_weight: weight of KL / N in the loss; below 1 the posterior is tempered, and the model card says so. "auto" is
        0.03 of the training examples per random weight, at most 1: the KL of independent weights grows with their
        number, not with what they know, and would outweigh a small data set.
    kl_warmup: fraction of the steps over which that weight rises from 0.
    noise_warmup: fraction of the steps over which the weights' noise rises from 0, so that the means settle first; 0
        has the whole noise from the start, and so has the estimator "ivon".
    draws: weight draws per step; the step averages their log-likelihoods.
    learning_rate: highest learning rate; it falls to 0 along a cosine after the warm-up.
    warmup: fraction of the steps over which the learning rate rises from 0.
    clip: largest norm of the gradient.
    average: fraction of the epochs, at the end, whose weights are averaged (Izmailov et al. 2018); 0 takes the last
        weights.
    mixup: the parameter of the Beta distribution from which the shares of two mixed images come (Zhang et al. 2018);
        0 mixes none. Only for classes of whole images; 0.2 to 0.4 are usual.
    loss_weights: weights of the heads' losses besides each head's own `weight`: "fixed" adds none, "learned" learns
        one from each head's noise (Kendall et al. 2018).
    l1, l2: penalties on the deterministic kernels, for absolute values and for squares.
    patience: epochs without a better validation ELBO after which the fit stops and takes the best weights; 0
        fits all epochs and takes the last weights.
    precision: of activations; weights, densities and the saved model stay float32.
    checkpoint: steps between two checkpoints; 0 writes one per epoch.
    """

    epochs: PositiveInt | Literal["auto"] = "auto"
    batch: PositiveInt = 64
    learning_rate: PositiveFloat = 3e-3
    warmup: Fraction = 0.05
    clip: PositiveFloat = 10.0
    kl_weight: Annotated[float, Meta(ge=0)] | Literal["auto"] = "auto"
    kl_warmup: Fraction = 0.3
    noise_warmup: Fraction = 0.0
    draws: PositiveInt = 1
    average: Fraction = 0.0
    mixup: Annotated[float, Meta(ge=0)] = 0.0
    loss_weights: Literal["fixed", "learned"] = "fixed"
    l1: Annotated[float, Meta(ge=0)] = 0.0
    l2: Annotated[float, Meta(ge=0)] = 0.0
    patience: NaturalInt = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    checkpoint: NaturalInt = 0

    @property
    def epoch_count(self) -> int:
        """The number of epochs; `fit.objective.resolve_epochs` gives "auto" one."""
        if self.epochs == "auto":
            raise ValueError('epochs = "auto" depends on the data: call resolve_epochs first')
        return self.epochs

    @property
    def kl_factor(self) -> float:
        """The weight of the KL as a number; `fit.objective.resolve_kl_weight` gives "auto" one."""
        if self.kl_weight == "auto":
            raise ValueError('a kl_weight of "auto" depends on model and data: call resolve_kl_weight first')
        return float(self.kl_weight)
