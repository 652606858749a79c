"""Backbones: the shared part of a network, from raw images to named stages."""

from __future__ import annotations

from typing import Annotated, Literal

import keras
from msgspec import Meta, Struct

from probrt.trainer import layers
from probrt.trainer.posteriors import AnyPosterior
from probrt.trainer.posteriors import Normal as NormalPosterior
from probrt.trainer.priors import AnyPrior, LearnedNormal

Positive = Annotated[int, Meta(ge=1)]


class Weights(Struct, frozen=True, forbid_unknown_fields=True):
    """How the layers of a network get their weights.

    posterior: of kernels; prior: of kernels; estimator: while fitting. bias_posterior, bias_prior:
        left out, biases are deterministic.
    """

    posterior: AnyPosterior = NormalPosterior()
    prior: AnyPrior = LearnedNormal()
    estimator: str = "auto"
    bias_posterior: AnyPosterior | None = None
    bias_prior: AnyPrior | None = None

    def conv(self, rank: int, filters: int, kernel: int, name: str, activation: str | None = None) -> keras.Layer:
        """A same-padded convolution of that many dimensions with these weights."""
        kind = (layers.Conv1D, layers.Conv2D, layers.Conv3D)[rank - 1]
        return kind(
            filters,
            kernel,
            activation=activation,
            name=name,
            kernel_posterior=self.posterior,
            kernel_prior=self.prior,
            bias_posterior=self.bias_posterior,
            bias_prior=self.bias_prior,
            estimator=self.estimator,
        )


class Stage(Struct, frozen=True):
    """A tap of the backbone: its feature map and how many input pixels each of its positions spans."""

    features: keras.KerasTensor
    stride: int


class Backbone(Struct, frozen=True, forbid_unknown_fields=True, tag_field="name"):
    """What every backbone states."""

    def stages(self, images: keras.KerasTensor, weights: Weights) -> dict[str, Stage]:
        """Named stages in order, from scaled images [batch, *space, channels]; the last feeds the heads."""
        raise TypeError(f"{type(self).__name__} states no stages")


class ConvStack(Backbone, frozen=True, tag="conv"):
    """Stages of same-padded convolutions, each but the first begun by a 2-wide max-pool.

    normalisation: of each convolution's outputs, before its activation.
    widths: filters per stage. depth: convolutions per stage. kernel: their window.
    """

    widths: Annotated[tuple[Positive, ...], Meta(min_length=1)] = (32, 64, 128)
    depth: Positive = 1
    kernel: Positive = 3
    activation: Literal["relu", "gelu", "elu", "tanh"] = "relu"
    normalisation: Literal["none", "batch"] = "none"

    def stages(self, images: keras.KerasTensor, weights: Weights) -> dict[str, Stage]:
        rank = len(images.shape) - 2
        pool = (keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D)[rank - 1]
        features, found = images, {}
        for number, width in enumerate(self.widths, start=1):
            if number > 1:
                features = pool(2, name=f"stage{number}_pool")(features)
            for conv in range(1, self.depth + 1):
                name = f"stage{number}_conv{conv}"
                features = weights.conv(rank, width, self.kernel, name)(features)
                if self.normalisation == "batch":
                    features = keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(features)
                features = keras.layers.Activation(self.activation, name=f"{name}_{self.activation}")(features)
            found[f"stage{number}"] = Stage(features, 2 ** (number - 1))
        return found


AnyBackbone = ConvStack
