"""Chooses the input of a model by looking at the files: shape, colour, resize and range."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import DataError, ImageError
from probrt.runtime.images.decode import NUMPY_MAGIC, decode, open_picture, read_bytes
from probrt.runtime.images.volumes import decode_volume, is_volume
from probrt.trainer.data.notes import has_colour

_LOOKED_AT = 256
# A picture larger than this is made smaller: training time grows with the pixels.
_LARGEST_SIDE = 128


@dataclass(frozen=True)
class InputChoice:
    """The input's settings with a reason for each key. sides: of the model's images, without channels."""

    settings: dict[str, Any]
    reasons: dict[str, str]

    @property
    def sides(self) -> list[int]:
        return list(self.settings["shape"][:-1])

    @property
    def is_picture(self) -> bool:
        return len(self.sides) == 2 and self.settings["colour"] != "none"

    @property
    def coloured(self) -> bool:
        return bool(self.settings["colour"] == "rgb")


def choose_input(root: Path, names: Sequence[str]) -> InputChoice:
    """Chooses the input for images of a folder; looks at a few hundred of them, spread evenly.

    Raises DataError if some cannot be read, or if arrays have different shapes.
    """
    chosen = [names[place] for place in np.unique(np.linspace(0, len(names) - 1, _LOOKED_AT).astype(int))]
    pictures: Counter[tuple[int, int]] = Counter()
    arrays: Counter[tuple[int, ...]] = Counter()
    coloured = transparent = 0
    peaks: list[float] = []
    faults: list[str] = []
    for name in chosen:
        try:
            data = read_bytes(root / name)
            if data.startswith(NUMPY_MAGIC) or is_volume(data):
                arrays[_array_shape(data)] += 1
                continue
            decoded = decode(data, _RAW)  # first, for its reasons are for people
            picture, _ = open_picture(data)
            sides = decoded.sides or (picture.height, picture.width)
            pictures[sides] += 1
            if picture.mode.startswith("I"):
                with Image.open(io.BytesIO(data)) as deep:
                    peaks.append(float(np.asarray(deep).max()))
            else:
                coloured += picture.mode not in ("1", "L", "LA", "F") and has_colour(picture)
            transparent += picture.mode in ("LA", "RGBA", "PA") or "transparency" in picture.info
        except (ImageError, OSError, ValueError) as error:
            faults.append(f"{name} ({error})")
    if faults:
        raise DataError(f"{root}: {len(faults)} of {len(chosen)} files looked at cannot be read, such as {faults[0]}")
    if arrays:
        return _choose_array(root, arrays, pictures)
    return _choose_picture(pictures, coloured, transparent, peaks)


_RAW = Input(shape=[None, None, 1], colour="grey", resize="none", range=None)


def _array_shape(data: bytes) -> tuple[int, ...]:
    if is_volume(data):
        return tuple(decode_volume(data).shape)
    return tuple(np.load(io.BytesIO(data), allow_pickle=False).shape)


def _choose_array(root: Path, arrays: Counter[tuple[int, ...]], pictures: Counter[tuple[int, int]]) -> InputChoice:
    if pictures:
        raise DataError(f"{root}: arrays and pictures are mixed; keep one kind")
    if len(arrays) > 1:
        shown = ", ".join(str(list(shape)) for shape in list(arrays)[:4])
        raise DataError(f"{root}: arrays of several shapes ({shown}); bring them to one")
    (shape,) = arrays
    settings = {"shape": list(shape), "colour": "none", "resize": "none"}
    reasons = {"shape": "of all arrays looked at, channels last", "colour": "arrays are no pictures"}
    return InputChoice(settings, reasons)


def _choose_picture(
    pictures: Counter[tuple[int, int]], coloured: int, transparent: int, peaks: list[float]
) -> InputChoice:
    count = sum(pictures.values())
    heights, widths = (np.repeat([sides[axis] for sides in pictures], list(pictures.values())) for axis in (0, 1))
    height, width = int(np.median(heights)), int(np.median(widths))
    reasons: dict[str, str] = {}
    same = len(pictures) == 1
    if same and max(height, width) <= _LARGEST_SIDE:
        sides, resize = (height, width), "none"
        reasons["resize"] = "every picture has this size; another one is refused"
        why = f"all {count} pictures looked at are {height} x {width}"
    else:
        factor = min(1.0, _LARGEST_SIDE / max(height, width))
        sides, resize = (_round(height * factor), _round(width * factor)), "bilinear"
        if not same and 0.75 < height / width < 4 / 3:
            sides = (max(sides), max(sides))
        reasons["resize"] = "pictures are stretched to this shape"
        sizes = f"all {height} x {width}" if same else f"{len(pictures)} sizes, the median {height} x {width}"
        why = f"{sizes}; at most {_LARGEST_SIDE} a side, larger takes longer"
    colour = "rgb" if coloured else "grey"
    reasons["colour"] = f"{coloured} of {count} pictures looked at have colours"
    reasons["colour"] += f"; {transparent} are transparent, on white" if transparent else ""
    high = 255
    if len(peaks) == count:
        high = 4095 if 255 < max(peaks) <= 4095 else 65535
    reasons["range"] = "8 bits" if high == 255 else f"16-bit files, highest value {max(peaks):g}"
    reasons["shape"] = why
    settings = {"shape": [*sides, 3 if coloured else 1], "colour": colour, "resize": resize, "range": [0, high]}
    return InputChoice(settings, reasons)


def _round(side: float) -> int:
    """Rounds a side to a multiple of 8, so that stages halve it."""
    return max(8, round(side / 8) * 8)
