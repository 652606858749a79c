"""The target of a head per position, from a mask file.

A picture gives its grey values, or the colour numbers of a palette. `.npy` gives raw values [*sides] or
[*sides, channels], NaN where a value is unknown. NIfTI volumes are read as for input. Where pictures are resized for
the model, masks are too, to the nearest pixel, so that every value comes from the file.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import ImageError, one_line
from probrt.runtime.images.decode import FORMATS, NUMPY_MAGIC, decode
from probrt.runtime.images.volumes import decode_volume, is_volume
from probrt.trainer.heads import AnyHead


def parse_mask_file(data: bytes, head: AnyHead, sides: tuple[int, ...], file_sides: tuple[int, ...]) -> np.ndarray:
    """Parses the target [*sides, …] from a mask file's bytes.

    file_sides: the sides of the image's own file, which a mask may have too. Raises ImageError for a file that is no
    mask of these sides, ValueError for values that the head cannot have.
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
    return head.parse_mask(values, high)


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
