"""Pixels: decoded, coloured and resized in one place, for training and for prediction.

The rules, in the order in which they act:

* The file's content names its format, never its suffix: PNG, JPEG (and MPO), WebP, BMP, TIFF, GIF, PNM, `.npy`,
  and NIfTI for models of volumes (`volumes.py`).
* At most 40 megapixels, checked from the header before a pixel is decoded.
* The first frame of an animation or of several pages.
* Turned upright by the EXIF orientation; EXIF data that cannot be read counts as none.
* Palettes become their colours; alpha is composited on white; CMYK, YCbCr, Lab and HSV become RGB
  by Pillow's plain formulas, without colour profiles.
* Grey from colour is the luma of ITU-R 601; colour from grey repeats it.
* 16-bit grey: divided by 257 and rounded for a model of range 0-255, as it is for any other.
  8-bit pictures are multiplied by 257 for a model of range 0-65535. (Pillow reads 16-bit RGB as 8-bit.)
* `bilinear` stretches to the model's sides, antialiased, rounded to integers unless the file holds
  floats; `none` refuses another size.
* Arrays (`.npy`) are raw values: never resized, a missing channel axis of length 1 is added.
* Every value must be finite and inside `input.range`.
"""

import io
import os
import stat
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import ImageError, one_line
from probrt.runtime.images.volumes import is_volume, read_volume

MAX_PIXELS = 40_000_000
MAX_BYTES = 1 << 30
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM")
SUFFIXES = frozenset(
    [
        ".png",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".webp",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".gif",
        ".ppm",
        ".pgm",
        ".pnm",
        ".pbm",
        ".npy",
        ".nii",
        ".nii.gz",
    ]
)
ORIENTATION_TAG = 0x0112
NUMPY_MAGIC = b"\x93NUMPY"
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Decoded:
    """One image as the model takes it: float32 of `input.shape`.

    frames: how many its file had. affine: of a NIfTI volume, [4, 4]. sides: of a picture, (height, width) before it
        was resized.
    """

    pixels: Pixels
    frames: int = 1
    affine: npt.NDArray[np.float64] | None = None
    sides: tuple[int, int] | None = None


def read_image(source: str | os.PathLike[str] | bytes, input: Input) -> Pixels:
    """One image (a path or an encoded file's bytes) as raw values: float32 of `input.shape`.

    Raises ImageError for anything that the model cannot take, with the reason.
    """
    data = source if isinstance(source, bytes) else read_bytes(source)
    return decode(data, input).pixels


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """A plain file's bytes; ImageError for what is none, without ever waiting on a pipe."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        kind = os.stat(path).st_mode  # noqa: PTH116 (a hot path)
        if not stat.S_ISREG(kind):  # opening a device or a pipe may already do something
            raise ImageError("a folder that cannot be listed" if stat.S_ISDIR(kind) else "not a plain file")
        with os.fdopen(os.open(path, flags), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageError("not a plain file")
            if status.st_size > MAX_BYTES:
                raise ImageError(f"{status.st_size} bytes; at most {MAX_BYTES} are read")
            return stream.read(MAX_BYTES)
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise ImageError(f"cannot be read: {one_line(error)}") from None


def decode(data: bytes, input: Input) -> Decoded:
    """The image in an encoded file's bytes; ImageError if it cannot be decoded or the model cannot take it."""
    if not data:
        raise ImageError("the file is empty")
    if data.startswith(NUMPY_MAGIC):
        return Decoded(fitted(_numpy_array(data), input))
    if input.colour == "none" and is_volume(data):
        voxels, affine = read_volume(data)
        return Decoded(fitted(voxels, input), affine=affine)
    return _picture(data, input)


def fitted(array: npt.NDArray[np.generic], input: Input) -> Pixels:
    """Raw values as float32 of `input.shape`; ImageError for another shape, dtype or range."""
    if array.dtype.kind not in "uifb":
        raise ImageError(f"holds values of type {array.dtype}; the model takes numbers")
    if array.ndim + 1 == len(input.shape) and input.shape[-1] == 1:
        array = array[..., np.newaxis]
    if not matches(array.shape, input.shape):
        raise ImageError(f"an array of shape {list(array.shape)}; the model takes {shown(input.shape)}")
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(array, dtype=np.float32)
    _check_range(values, input)
    return values


def matches(shape: tuple[int, ...], wanted: list[int | None]) -> bool:
    """Whether an array's shape is one that `input.shape` allows (null is a side of any size above 0)."""
    return len(shape) == len(wanted) and all(
        side > 0 and want in (None, side) for side, want in zip(shape, wanted, strict=True)
    )


def shown(shape: list[int | None]) -> str:
    """A shape as messages name it, `?` for a side of any size."""
    return "[" + ", ".join("?" if side is None else str(side) for side in shape) + "]"


def _numpy_array(data: bytes) -> npt.NDArray[np.generic]:
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # a hostile header can raise nearly anything
        raise ImageError(f"not a readable .npy array: {one_line(error)}") from None
    return np.asarray(array)


def _check_range(values: Pixels, input: Input) -> None:
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):  # min and max carry NaN
        raise ImageError("holds values that are not finite")
    if input.range is not None and (low < input.range[0] or high > input.range[1]):
        raise ImageError(
            f"holds values from {low:g} to {high:g}; the model takes {input.range[0]:g} to {input.range[1]:g}"
        )


def _picture(data: bytes, input: Input) -> Decoded:
    if input.colour == "none" or len(input.shape) != 3:
        raise ImageError(f"is a picture or unknown; the model takes arrays of shape {shown(input.shape)} (.npy)")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise ImageError(f"{opened.width} x {opened.height} pixels; at most {MAX_PIXELS // 10**6} megapixels")
            frames = int(getattr(opened, "n_frames", 1))
            opened.seek(0)
            opened.load()
            image = _coloured(_upright(opened), input)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"too many pixels; at most {MAX_PIXELS // 10**6} megapixels") from None
    except UnidentifiedImageError:
        raise ImageError("not an image in a format that is read (PNG, JPEG, WebP, BMP, TIFF, GIF, PNM, .npy)") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise ImageError(f"cannot be decoded: {one_line(error)}") from None
    values = _resized(image, input)
    if input.range == (0.0, 65535.0) and image.mode in ("L", "RGB"):
        values *= np.float32(257)
    _check_range(values, input)
    return Decoded(values, frames, sides=(image.height, image.width))


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _UPRIGHT.get(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # as stated above: EXIF data that cannot be read counts as none
        return image
    return image if turn is None else image.transpose(turn)


def _coloured(image: Image.Image, input: Input) -> Image.Image:
    """The picture in mode L or RGB, or, for deep grey ones, F."""
    if image.mode[0] == "I":
        deep = np.asarray(image, dtype=np.float32)
        if deep.min() < 0 or deep.max() > 65535:
            raise ImageError("holds integers of more than 16 bits")
        if input.range != (0.0, 255.0):
            return Image.fromarray(deep)
        image = Image.fromarray(np.rint(deep / np.float32(257)).astype(np.uint8))
    if image.mode == "F":
        return image
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image).convert("RGB")
    elif image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")
    return image.convert("L" if input.colour == "grey" else "RGB")


def _resized(image: Image.Image, input: Input) -> Pixels:
    """Raw values, float32 [height, width, channels]."""
    height = input.shape[0] or image.height
    width = input.shape[1] or image.width
    if (width, height) != image.size:
        if input.resize == "none":
            raise ImageError(
                f"{image.width} x {image.height} pixels; the model takes {width} x {height} and does not resize"
            )
        whole = image.mode == "F" and not np.any(np.asarray(image) % 1)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        values = np.array(image, dtype=np.float32)
        if whole:
            np.rint(values, out=values)
    else:
        values = np.array(image, dtype=np.float32)
    if values.ndim == 2:
        values = np.repeat(values[..., np.newaxis], 3 if input.colour == "rgb" else 1, axis=-1)
    if values.shape[-1] != input.shape[-1]:
        raise ImageError(f"a {input.colour} picture has {values.shape[-1]} channels; the model takes {input.shape[-1]}")
    return values
