"""What every backbone states, and what their layers are made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import keras
from msgspec import Meta, Struct

from probrt.runtime.errors import ConfigError
from probrt.trainer.layers.coordinates import Coordinates
from probrt.trainer.layers.dropout import ChannelDropout
from probrt.trainer.layers.weight_settings import Activation, WeightSettings

Positive = Annotated[int, Meta(ge=1)]
Widths = Annotated[tuple[Positive, ...], Meta(min_length=1)]


class Stage(Struct, frozen=True):
    """A tap of the backbone: its feature map and how many input pixels each of its positions spans."""

    features: keras.KerasTensor
    stride: int = 1


class Backbone(Struct, frozen=True, forbid_unknown_fields=True, tag_field="name"):
    """What every backbone states."""

    def stages(self, images: keras.KerasTensor, weights: WeightSettings) -> Mapping[str, Stage]:
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
        self, features: Any, weights: WeightSettings, width: int, name: str, *, strides: int = 1, activated: bool = True
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
