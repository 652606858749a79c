"""What every backbone states, and what their layers are made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import keras
from msgspec import Meta, Struct
from msgspec.structs import force_setattr

from probrt.runtime.errors import ConfigError
from probrt.trainer import layers
from probrt.trainer.layers.base import chosen_prior
from probrt.trainer.layers.coordinates import Coordinates
from probrt.trainer.layers.dropout import ChannelDropout
from probrt.trainer.variational.estimators import refusal
from probrt.trainer.variational.posteriors import AnyPosterior
from probrt.trainer.variational.posteriors import Normal as NormalPosterior
from probrt.trainer.variational.priors import AnyPrior

Positive = Annotated[int, Meta(ge=1)]
Widths = Annotated[tuple[Positive, ...], Meta(min_length=1)]
Activation = Literal["relu", "gelu", "elu", "tanh", "swish"]


class Weights(Struct, frozen=True, forbid_unknown_fields=True):
    """How the layers of a network get their weights.

    posterior: of kernels; prior: of kernels, left out the usual one of that posterior; estimator: while fitting.
    bias_posterior, bias_prior: left out, biases are deterministic.
    bayesian: "all" layers, "none", or a regular expression: layers whose name it matches are Bayesian, the
        others deterministic.
    """

    posterior: AnyPosterior = NormalPosterior()
    prior: AnyPrior | None = None
    estimator: Literal["auto", "reparameterization", "local_reparameterization", "flipout"] = "auto"
    bias_posterior: AnyPosterior | None = None
    bias_prior: AnyPrior | None = None
    bayesian: str = "all"

    def __post_init__(self) -> None:
        try:
            re.compile(self.bayesian)
        except re.error as error:
            raise ValueError(f"bayesian: {self.bayesian!r} is not a regular expression ({error})") from None
        if reason := refusal(self.estimator, self.posterior):
            raise ValueError(f"estimator: {reason}")
        if self.bias_posterior is not None and self.bias_posterior.kernel_only:
            raise ValueError("bias_posterior: this family needs inputs and outputs; use normal for a bias")
        # Filled in, so that --print-config and the model card show it.
        force_setattr(self, "prior", chosen_prior(self.prior, self.posterior, "prior"))
        force_setattr(self, "bias_prior", chosen_prior(self.bias_prior, self.bias_posterior, "bias_prior"))

    def conv(
        self, rank: int, filters: int, kernel: int, name: str, activation: str | None = None, strides: int = 1
    ) -> keras.Layer:
        """A same-padded convolution of that many dimensions with these weights; with 0, a dense layer."""
        families: dict[str, Any] = {"kernel_posterior": None}
        if self._random(name):
            families = {
                "kernel_posterior": self.posterior,
                "kernel_prior": self.prior,
                "bias_posterior": self.bias_posterior,
                "bias_prior": self.bias_prior,
                "estimator": self.estimator,
            }
        if rank == 0:
            return layers.Dense(filters, activation=activation, name=name, **families)
        kind = (layers.Conv1D, layers.Conv2D, layers.Conv3D)[rank - 1]
        return kind(filters, kernel, strides=strides, activation=activation, name=name, **families)

    def _random(self, name: str) -> bool:
        if self.bayesian in ("all", "none"):
            return self.bayesian == "all"
        return re.search(self.bayesian, name) is not None


class Stage(Struct, frozen=True):
    """A tap of the backbone: its feature map and how many input pixels each of its positions spans."""

    features: keras.KerasTensor
    stride: int = 1


class Backbone(Struct, frozen=True, forbid_unknown_fields=True, tag_field="name"):
    """What every backbone states."""

    def stages(self, images: keras.KerasTensor, weights: Weights) -> Mapping[str, Stage]:
        """Named stages in order, from scaled images [batch, *space, channels]; the last feeds the heads."""
        raise TypeError(f"{type(self).__name__} states no stages")

    def located(self, folder: Path) -> Self:
        """The backbone with the paths of files it names relative to `folder`."""
        del folder
        return self


class ConvBackbone(Backbone, frozen=True, kw_only=True):
    """What backbones of convolutions share.

    kernel: window. activation: after each convolution. normalisation: of its outputs, before the activation;
        "group" in groups of about 8 channels (Wu and He 2018).
    dropout: share of channels dropped while fitting. mc_dropout: dropped in every draw too, one channel mask per
        draw, so that dropout is a posterior of its own (Gal and Ghahramani 2016).
    coordinates: each position's place as further channels of the input; for boxes, and whatever else is a place.
    """

    kernel: Positive = 3
    activation: Activation = "relu"
    normalisation: Literal["none", "batch", "group"] = "none"
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    mc_dropout: bool = False
    coordinates: bool = False

    def __post_init__(self) -> None:
        if self.mc_dropout and self.dropout == 0:
            raise ValueError("mc_dropout keeps dropout on in every draw: give dropout above 0, such as 0.2")

    def entered(self, images: Any) -> Any:
        """The images as the first layer gets them."""
        return Coordinates(name="coordinates")(images) if self.coordinates else images

    def convolved(
        self, features: Any, weights: Weights, width: int, name: str, *, strides: int = 1, activated: bool = True
    ) -> Any:
        """Convolution, normalisation, activation, dropout; the parts are named `<name>_…`."""
        features = weights.conv(len(features.shape) - 2, width, self.kernel, name, strides=strides)(features)
        features = self.normalised(features, width, name)
        return self.activated(features, name) if activated else features

    def normalised(self, features: Any, width: int, name: str) -> Any:
        """Features [batch, *space, width] after the chosen normalisation."""
        if self.normalisation == "batch":
            return keras.layers.BatchNormalization(momentum=0.9, synchronized=True, name=f"{name}_norm")(features)
        if self.normalisation == "group":
            groups = max(count for count in range(1, max(1, width // 8) + 1) if width % count == 0)
            return keras.layers.GroupNormalization(groups, name=f"{name}_norm")(features)
        return features

    def activated(self, features: Any, name: str) -> Any:
        """Features after the activation and the dropout."""
        features = keras.layers.Activation(self.activation, name=f"{name}_{self.activation}")(features)
        if self.dropout:
            features = ChannelDropout(self.dropout, in_draws=self.mc_dropout, name=f"{name}_dropout")(features)
        return features


def space_of(images: Any, kind: str, ranks: tuple[int, ...]) -> int:
    """The number of dimensions of images [batch, *space, channels]; ConfigError if it is none of `ranks`."""
    rank = len(images.shape) - 2
    if rank not in ranks:
        shapes = ("[features]", "[length, channels]", "[height, width, channels]", "[depth, height, width, channels]")
        raise ConfigError(
            f"backbone: {kind!r} takes inputs of shape {' or '.join(shapes[one] for one in ranks)}, "
            f"not {list(images.shape[1:])}"
        )
    return rank
