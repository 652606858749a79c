"""The interface of backbones, and the layers that the convolutional ones share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import keras
from msgspec import Meta, Struct

from probrt.runtime.errors import ConfigError
from probrt.trainer.layers.coordinates import Coordinates
from probrt.trainer.layers.dropout import ChannelDropout
from probrt.trainer.layers.normalisation import BatchNorm
from probrt.trainer.layers.weight_settings import Activation, WeightSettings

Positive = Annotated[int, Meta(ge=1)]
Widths = Annotated[tuple[Positive, ...], Meta(min_length=1)]
Normalisation = Literal["none", "batch", "group"]
# Map sides of the last stage at most, filters of the first and the widest stage, and the fewest stages.
_LAST_SIDE, _NARROWEST, _WIDEST, _FEWEST = 8, 16, 256, 3


class Stage(Struct, frozen=True):
    """A stage of a backbone: its feature map; stride: input pixels that each position spans."""

    features: keras.KerasTensor
    stride: int = 1


class Backbone(Struct, frozen=True, forbid_unknown_fields=True, tag_field="name"):
    """Base class of backbones."""

    def stages(self, images: keras.KerasTensor, weights: WeightSettings) -> Mapping[str, Stage]:
        """Builds named stages in order, from scaled images [batch, *space, channels]; the last feeds the heads."""
        raise TypeError(f"{type(self).__name__} must define stages")

    def resolve_paths(self, folder: Path) -> Self:
        """Returns the backbone with the files that it names taken relative to `folder`."""
        del folder
        return self


class ConvBackbone(Backbone, frozen=True, kw_only=True):
    """Base class of convolutional backbones.

    kernel: window. activation: after each convolution. normalisation: of its outputs, before the activation;
        "group" in groups of about 8 channels (Wu and He 2018).
    dropout: share of channels dropped while fitting. mc_dropout: drops channels in every draw too, one mask per
        draw, so that dropout is a posterior of its own (Gal and Ghahramani 2016).
    coordinates: adds each pixel's position as channels of the input; for boxes and other targets that are a place.
    """

    kernel: Positive = 3
    activation: Activation = "relu"
    normalisation: Normalisation = "batch"
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    mc_dropout: bool = False
    coordinates: bool = False

    def __post_init__(self) -> None:
        if self.mc_dropout and self.dropout == 0:
            raise ValueError("mc_dropout keeps dropout on in every draw: give dropout above 0, such as 0.2")

    def prepare_images(self, images: Any) -> Any:
        """Returns the input of the first layer: the images, with coordinate channels if asked for."""
        return Coordinates(name="coordinates")(images) if self.coordinates else images

    def convolve(
        self, features: Any, weights: WeightSettings, width: int, name: str, *, strides: int = 1, activated: bool = True
    ) -> Any:
        """Applies convolution, normalisation, activation and dropout; their layers are named `<name>_…`."""
        features = weights.conv(len(features.shape) - 2, width, self.kernel, name, strides=strides)(features)
        features = self.normalise(features, width, name)
        return self.activate(features, name) if activated else features

    def normalise(self, features: Any, width: int, name: str) -> Any:
        """Applies the chosen normalisation to features [batch, *space, width]."""
        if self.normalisation == "batch":
            return BatchNorm(momentum=0.9, synchronized=True, name=f"{name}_norm")(features)
        if self.normalisation == "group":
            groups = max(count for count in range(1, max(1, width // 8) + 1) if width % count == 0)
            return keras.layers.GroupNormalization(groups, name=f"{name}_norm")(features)
        return features

    def activate(self, features: Any, name: str) -> Any:
        """Applies the activation and the dropout."""
        features = keras.layers.Activation(self.activation, name=f"{name}_{self.activation}")(features)
        if self.dropout:
            features = ChannelDropout(self.dropout, in_draws=self.mc_dropout, name=f"{name}_dropout")(features)
        return features


def choose_widths(sides: Sequence[int | None]) -> tuple[int, ...]:
    """Returns the filters of each stage that suit the sides of an image.

    As many stages, each with half the sides of the one before, as bring the longest side to 8 or less, and three at
    least, but not so many that the shortest side vanishes. They begin with 32 filters, or with 16 where the longest
    side exceeds 32, and double up to 256.
    """
    known = [side for side in sides if side is not None] or [32]
    longest = max(known)
    stages = max(_FEWEST, 1 + math.ceil(math.log2(longest / _LAST_SIDE)))
    stages = min(stages, 1 + int(math.log2(min(known))))
    first = _NARROWEST * 2 if longest <= 32 else _NARROWEST
    return tuple(min(_WIDEST, first * 2**stage) for stage in range(stages))


def check_rank(images: Any, kind: str, ranks: tuple[int, ...]) -> None:
    """Raises ConfigError if the dimensions of images [batch, *space, channels] are none of `ranks`."""
    if len(images.shape) - 2 not in ranks:
        shapes = ("[features]", "[length, channels]", "[height, width, channels]", "[depth, height, width, channels]")
        raise ConfigError(
            f"backbone: {kind!r} takes inputs of shape {' or '.join(shapes[rank] for rank in ranks)}, "
            f"not {list(images.shape[1:])}"
        )
