"""The target of a head per position, from a mask file.

A picture gives its grey values, or the colour numbers of a palette. `.npy` gives raw values [*sides] or
[*sides, channels], NaN where a value is unknown. NIfTI volumes are read as for input. Where pictures are resized for
the model, masks are too, to the nearest pixel, so that every value comes from the file.
"""

from __future__ import annotations

import io
import threading
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import ImageError, one_line
from probrt.runtime.images.decode import FORMATS, NUMPY_MAGIC, decode
from probrt.runtime.images.volumes import decode_volume, is_volume

# How many values of masks a message lists.
_SHOWN = 8


class MaskFile(NamedTuple):
    """The content of a mask file.

    values: [*sides, channels]. high: the highest value that the file's type holds, 1 for arrays.
    """

    values: np.ndarray
    high: float


def read_mask(data: bytes, sides: tuple[int, ...], file_sides: tuple[int, ...]) -> MaskFile:
    """Reads a mask for an image of the given sides from the bytes of a file.

    file_sides: the sides of the image's own file, which a mask may have too. Raises ImageError for a file that is no
    mask of these sides.
    """
    if not data:
        raise ImageError("the file is empty")
    if data.startswith(NUMPY_MAGIC):
        values, high = _read_array(data, len(sides)), 1.0
    elif len(sides) == 3 and is_volume(data):
        values, high = decode_volume(data), 1.0
    else:
        values, high = _read_picture(data)
    if values.shape[:-1] != sides:
        if values.shape[:-1] != file_sides or len(sides) != 2:
            raise ImageError(f"a mask of sides {list(values.shape[:-1])}; the image has {list(file_sides or sides)}")
        values = values[_nearest_rows(values.shape[0], sides[0])][:, _nearest_rows(values.shape[1], sides[1])]
    return MaskFile(values, high)


class MaskScale:
    """Finds the value that means yes in the mask pictures of a head of yes and no.

    Programs write yes as 255, as 65535 or as 1, whatever the file's type holds: only the values of all masks together
    tell which.
    """

    def __init__(self) -> None:
        self._peaks: dict[float, dict[int, float]] = {}
        self._values: set[float] = set()
        self._lock = threading.Lock()

    def add(self, place: int, mask: MaskFile) -> None:
        """Takes the mask of a row; arrays and volumes, whose yes is 1, tell nothing."""
        if mask.high <= 1:
            return
        peak = float(mask.values.max())
        few = set(np.unique(mask.values)[:_SHOWN].tolist()) if 0 < peak <= mask.high / 2 else set()
        with self._lock:
            self._peaks.setdefault(mask.high, {})[place] = peak
            self._values |= few

    def find_high(self) -> dict[float, float]:
        """Returns, for each type of file by the highest value it holds, the value that means yes, if it is another.

        Raises ValueError if no value of the masks can mean yes.
        """
        changed: dict[float, float] = {}
        for high, peaks in self._peaks.items():
            peak = max(peaks.values())
            if not 0 < peak <= high / 2:
                continue
            if peak != 1 and not 127.5 < peak <= 255:
                shown = ", ".join(f"{value:g}" for value in sorted(self._values)[:_SHOWN])
                raise ValueError(
                    f"the masks hold the values {shown}, none above half of {high:g}, which would be yes; write 0 and "
                    f'1, or 0 and {high:g}; for class numbers choose likelihood = "categorical"'
                )
            changed[high] = peak
        return changed

    def places(self, high: float) -> list[int]:
        """Returns the rows whose masks have a type that holds `high`."""
        return sorted(self._peaks.get(high, {}))

    def find_odd(self) -> dict[int, float]:
        """Returns the rows whose masks hold only 0 and 1 where others of their type reach far more, and how far."""
        odd: dict[int, float] = {}
        for high, peaks in self._peaks.items():
            if max(peaks.values()) > high / 2:
                odd |= {place: max(peaks.values()) for place, peak in peaks.items() if peak == 1}
        return odd


def _nearest_rows(file_side: int, side: int) -> np.ndarray:
    """Which row of a side in the file each row of a resized side takes its value from."""
    middles: np.ndarray = (np.arange(side) + 0.5) * file_side / side
    return middles.astype(int)


def _read_array(data: bytes, rank: int) -> np.ndarray:
    try:
        values = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # a hostile header can raise nearly anything
        raise ImageError(f"not a readable .npy array: {one_line(error)}") from None
    if values.dtype.kind not in "uifb" or values.ndim not in (rank, rank + 1):
        raise ImageError(f"an array {list(values.shape)} of {values.dtype}; a mask has {rank} sides, and channels")
    with_channels: np.ndarray = values[..., None] if values.ndim == rank else values
    return with_channels.astype(np.float32)


def _read_picture(data: bytes) -> tuple[np.ndarray, float]:
    """Reads the values of a picture, [height, width, 1], and the highest that its type holds."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as header:
            mode = header.mode
            if mode == "P" and header.width * header.height <= 40_000_000:
                return np.asarray(header, np.float32)[..., None], 255.0
    except UnidentifiedImageError:
        raise ImageError("not a picture, .npy array or NIfTI volume") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise ImageError(f"cannot be decoded: {one_line(error)}") from None
    raw = Input(shape=[None, None, 1], colour="grey", resize="none", range=None)
    return decode(data, raw).pixels, 65535.0 if mode.startswith("I") else 255.0
