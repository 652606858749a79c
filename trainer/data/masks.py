"""The target of a head per position, from a mask file.

A picture: its grey values, or the colour numbers of a palette; high is what its type holds. `.npy`: raw values
[*sides] or [*sides, channels], NaN where nothing is known. NIfTI: as volumes are read for input. Where pictures are
resized for the model, masks are too, by the nearest pixel, so that no value arises that is not in the file.
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


def mask(data: bytes, head: AnyHead, sides: tuple[int, ...], in_file: tuple[int, ...]) -> np.ndarray:
    """The target [*sides, …] in a mask file's bytes; ImageError or ValueError says what is wrong with it.

    in_file: the sides of the image's own file, which a mask may have too.
    """
    if not data:
        raise ImageError("the file is empty")
    if data.startswith(NUMPY_MAGIC):
        values, high = _array(data, len(sides)), 1.0
    elif len(sides) == 3 and is_volume(data):
        values, high = decode_volume(data), 1.0
    else:
        values, high = _picture(data)
    if values.shape[:-1] != sides:
        if values.shape[:-1] != in_file or len(sides) != 2:
            raise ImageError(f"a mask of sides {list(values.shape[:-1])}; the image has {list(in_file or sides)}")
        values = values[_nearest(values.shape[0], sides[0])][:, _nearest(values.shape[1], sides[1])]
    return head.from_map(values, high)


def _nearest(have: int, want: int) -> np.ndarray:
    return ((np.arange(want) + 0.5) * have / want).astype(int)


def _array(data: bytes, rank: int) -> np.ndarray:
    try:
        values = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # a hostile header can raise nearly anything
        raise ImageError(f"not a readable .npy array: {one_line(error)}") from None
    if values.dtype.kind not in "uifb" or values.ndim not in (rank, rank + 1):
        raise ImageError(f"an array {list(values.shape)} of {values.dtype}; a mask has {rank} sides, and channels")
    return (values[..., None] if values.ndim == rank else values).astype(np.float32)


def _picture(data: bytes) -> tuple[np.ndarray, float]:
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
