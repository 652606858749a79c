"""The TOML file of `probrt adopt MODEL.keras`: the heads, and what the model does not tell about itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import keras
from msgspec import Meta, Struct

from probrt.runtime.bundle.manifest import MODEL_NAME, Input
from probrt.runtime.errors import ConfigError
from probrt.trainer.adopt.card import read_card
from probrt.trainer.adopt.pixel_values import Values
from probrt.trainer.config.settings import DataSettings, FractionBelowOne
from probrt.trainer.heads import AnyHead

Colour = Literal["grey", "rgb", "none"]

_PIXEL_RANGE = (0.0, 255.0)


class InputCard(Struct, frozen=True, forbid_unknown_fields=True):
    """The input of the bundle; what is left out comes from the model.

    shape: without the batch. colour: by default grey for one channel, rgb for three, else none.
    resize: by default bilinear where the shape is fixed. range: of the raw values, by default 0 to 255 for pictures.
    unit: of the raw values.
    """

    shape: list[int | None] = []
    colour: Colour | None = None
    resize: Literal["bilinear", "none"] | None = None
    range: tuple[float, float] | None = None
    unit: str = ""


class DataCard(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the labelled images are read and split; as `[data]` of a training config, but for the fractions."""

    table: str = ""
    features: list[str] = []
    split: str = ""
    group: str = ""
    validation: Annotated[float, Meta(gt=0, lt=1)] = 0.3
    test: FractionBelowOne = 0.3


class KerasCard(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `probrt adopt` needs to know of a Keras model.

    heads: one for each output, or all of one output in the order of its channels.
    name: of the model and its bundles; by default the file's.
    values: the pixel values that the model takes; "auto" finds those for which it predicts the labels best.
    """

    heads: Annotated[list[AnyHead], Meta(min_length=1)]
    name: Annotated[str, Meta(pattern=MODEL_NAME)] | None = None
    input: InputCard = InputCard()
    data: DataCard = DataCard()
    values: Values = "auto"


def load_keras_card(path: Path) -> KerasCard:
    """Reads the file; raises ConfigError with what is wrong in it."""
    return read_card(path, KerasCard)


def describe_input(card: InputCard, model: keras.Model) -> Input:
    """Returns the input of the bundle; raises ConfigError if the model does not tell its shape and the card neither."""
    shape = card.shape or list(getattr(model, "input_shape", None) or [])[1:]
    if not shape or shape[-1] is None:
        raise ConfigError(
            "[input]: the model does not state its shape; write it without the batch, such as [64, 64, 3]"
        )
    pictures: dict[int | None, Colour] = {1: "grey", 3: "rgb"}
    colour = card.colour or (pictures.get(shape[-1], "none") if len(shape) == 3 else "none")
    resize = card.resize or ("bilinear" if colour != "none" and None not in shape else "none")
    range = card.range or (_PIXEL_RANGE if colour != "none" else None)
    return Input(shape=shape, colour=colour, resize=resize, range=range, unit=card.unit)


def describe_data(card: DataCard) -> DataSettings:
    """Returns the settings for reading; the folder is the one that the command line names."""
    return DataSettings(folder=".", **{name: getattr(card, name) for name in DataCard.__struct_fields__})
