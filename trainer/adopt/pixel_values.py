"""Which pixel values a finished model takes: as they are, from 0 to 1, or as keras.applications prepare them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import keras

from probrt.trainer.backbones.pretrained import Prepared

Values = Literal["auto", "0 to 255", "0 to 1", "-1 to 1", "caffe", "torch"]
Prepare = Callable[[Any], Any]


def _rescale(scale: float, offset: float = 0.0) -> Prepare:
    return lambda images: keras.layers.Rescaling(scale, offset, name="values")(images)


def _prepare_like(model: str) -> Prepare:
    return lambda images: Prepared(model, name="prepared")(_rescale(1 / 255)(images))


# caffe: blue, green, red, minus ImageNet's means. torch: from 0 to 1, minus its means, over its deviations.
WAYS: Mapping[str, Prepare] = {
    "0 to 255": lambda images: images,
    "0 to 1": _rescale(1 / 255),
    "-1 to 1": _rescale(2 / 255, -1.0),
    "caffe": _prepare_like("ResNet50"),
    "torch": _prepare_like("DenseNet121"),
}


def list_ways(values: str, channels: int | None, is_picture: bool) -> list[str]:
    """Returns the ways to try: the one that is given, or for "auto" all that an input of so many channels can have."""
    if not is_picture:
        return ["0 to 255"]  # the raw values
    if values != "auto":
        return [values]
    return [way for way in WAYS if channels == 3 or way not in ("caffe", "torch")]
