"""Decodes images: the one place for training and prediction that turns a file into pixels.

The rules, in the order in which they apply:

* The content of a file decides its format, never its suffix: PNG, JPEG (and MPO), WebP, BMP, TIFF, GIF, PNM, `.npy`,
  and NIfTI for models of volumes (`volumes.py`).
* A picture has at most 40 megapixels and 65,535 pixels a side; the header is checked before a pixel is decoded.
  `budgets.py` bounds the work that other parts of a file may ask for.
* A picture of which a part is missing is refused (`jpeg.py`, `completeness.py`).
* Of an animation or of several pages the first frame is taken.
* The EXIF orientation turns the picture upright; EXIF data that cannot be read is ignored.
* A palette is replaced by its colours; alpha is composited on white; CMYK, YCbCr, Lab and HSV become RGB by Pillow's
  plain formulas, without colour profiles.
* Grey from colour is the luma of ITU-R 601; colour from grey repeats the grey value.
* 16-bit grey is divided by 257 and rounded for a model of range 0-255, and stays as it is for any other model.
  8-bit pictures are multiplied by 257 for a model of range 0-65535. (Pillow reads 16-bit RGB as 8-bit.)
* `bilinear` stretches a picture to the model's sides, antialiased, and rounds to integers unless the file holds floats;
  `none` refuses another size.
* Arrays (`.npy`) are raw values: they are never resized, and get a channel axis of length 1 if they lack one.
* Every value must be finite and inside `input.range`.
"""

import io
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.bundle.manifest_checks import MAX_INPUT_VALUES
from probrt.runtime.errors import ImageError, one_line
from probrt.runtime.images.budgets import MAX_PIXELS, PNG_MAGIC, check_budget, check_sides
from probrt.runtime.images.completeness import check_png, check_tiff
from probrt.runtime.images.jpeg import JpegLayout, decode_whole, is_checkable, read_layout
from probrt.runtime.images.orientation import read_orientation
from probrt.runtime.images.volumes import is_volume, read_volume

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
JPEG_MAGIC = b"\xff\xd8\xff"
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

# Of a picture in Pillow's memory.
_BYTES_PER_PIXEL = 4
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True)
class DecodedImage:
    """One image as the model takes it: float32 of `input.shape`.

    frames: 1, or 2 if its file holds several frames or pages; they are not counted.
    affine: of a NIfTI volume, [4, 4].
    sides: (height, width) of a picture before it was resized.
    """

    pixels: Pixels
    frames: int = 1
    affine: npt.NDArray[np.float64] | None = None
    sides: tuple[int, int] | None = None


def read_image(source: str | os.PathLike[str] | bytes, input: Input) -> Pixels:
    """Reads one image, from a path or from the bytes of a file, as raw values: float32 of `input.shape`.

    Raises ImageError, with the reason, for anything that the model cannot take.
    """
    data = source if isinstance(source, bytes) else read_bytes(source)
    return decode(data, input).pixels


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Reads the bytes of a plain file. Raises ImageError for anything else and never waits on a pipe."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        kind = os.stat(path).st_mode  # noqa: PTH116 (a hot path)
        if not stat.S_ISREG(kind):  # even opening a device or a pipe may have an effect
            raise ImageError("a folder that cannot be listed" if stat.S_ISDIR(kind) else "not a plain file")
        with os.fdopen(os.open(path, flags), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageError("not a plain file")
            if status.st_size > MAX_BYTES:
                raise ImageError(f"{status.st_size} bytes; at most {MAX_BYTES} are read")
            data: bytes | None = stream.read(MAX_BYTES)
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise ImageError(f"cannot be read: {one_line(error)}") from None
    if data is None:  # files of the kernel, such as /proc/kmsg, may have nothing to give now
        raise ImageError("cannot be read: it gives no data now")
    return data


def decode(data: bytes, input: Input, reserve: Callable[[int], None] = lambda size: None) -> DecodedImage:
    """Decodes the bytes of a file; ImageError if that fails or if the model cannot take the image.

    reserve: called with about the bytes of memory that the pixels take, before any of them is decoded.
    """
    if not data:
        raise ImageError("the file is empty")
    if data.startswith(NUMPY_MAGIC):
        reserve(2 * len(data))
        return DecodedImage(fit_array(_decode_array(data), input))
    if input.colour == "none" and is_volume(data):
        reserve(4 * len(data))
        voxels, affine = read_volume(data)
        return DecodedImage(fit_array(voxels, input), affine=affine)
    return _decode_picture(data, input, reserve)


def fit_array(array: npt.NDArray[np.generic], input: Input) -> Pixels:
    """Converts raw values to float32 of `input.shape`; ImageError for another shape, type or range."""
    if array.dtype.kind not in "uifb":
        raise ImageError(f"holds values of type {array.dtype}; the model takes numbers")
    if array.ndim + 1 == len(input.shape) and input.shape[-1] == 1:
        array = array[..., np.newaxis]
    if not matches_shape(array.shape, input.shape):
        raise ImageError(f"an array of shape {list(array.shape)}; the model takes {format_shape(input.shape)}")
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(array, dtype=np.float32)
    _check_range(values, input)
    return values


def matches_shape(shape: tuple[int, ...], allowed: list[int | None]) -> bool:
    """Whether `input.shape` allows the shape of an array; None allows any size above 0."""
    return len(shape) == len(allowed) and all(
        side > 0 and expected in (None, side) for side, expected in zip(shape, allowed, strict=True)
    )


def format_shape(shape: list[int | None]) -> str:
    """Formats a shape for a message, with `?` for a side of any size."""
    return "[" + ", ".join("?" if side is None else str(side) for side in shape) + "]"


def _decode_array(data: bytes) -> npt.NDArray[np.generic]:
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # a hostile header can raise almost any exception
        raise ImageError(f"not a readable .npy array: {one_line(error)}") from None
    return np.asarray(array)


def _check_range(values: Pixels, input: Input) -> None:
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):  # min and max propagate NaN
        raise ImageError("holds values that are not finite")
    if input.range is not None and (low < input.range[0] or high > input.range[1]):
        raise ImageError(
            f"holds values from {low:g} to {high:g}; the model takes {input.range[0]:g} to {input.range[1]:g}"
        )


def open_picture(data: bytes) -> tuple[ImageFile.ImageFile, JpegLayout | None]:
    """Opens a picture within the limits of `budgets.py`; also returns the layout of a JPEG. No pixel is decoded yet.

    Raises ImageError beyond the limits, and what Pillow raises for a file that it cannot read.
    """
    layout = read_layout(data) if data.startswith(JPEG_MAGIC) else None
    check_budget(data, layout)
    opened = Image.open(io.BytesIO(data), formats=FORMATS)
    try:
        check_sides(opened.width, opened.height)
    except ImageError:
        opened.close()
        raise
    return opened, layout


def _decode_picture(data: bytes, input: Input, reserve: Callable[[int], None]) -> DecodedImage:
    if input.colour == "none" or len(input.shape) != 3:
        raise ImageError(
            f"a picture or a file of unknown format; the model takes arrays of shape {format_shape(input.shape)} (.npy)"
        )
    try:
        picture, layout = open_picture(data)
        with picture as opened:
            reserve(opened.width * opened.height * (_BYTES_PER_PIXEL + (12 if None in input.shape else 0)))
            frames = 2 if getattr(opened, "is_animated", False) else 1
            opened.seek(0)
            if layout is not None and is_checkable(layout):
                decode_whole(data, opened, layout)
            elif isinstance(opened, TiffImagePlugin.TiffImageFile):
                check_tiff(data, opened)
            opened.load()
            if data.startswith(PNG_MAGIC):
                check_png(data, opened)
            image = _convert_colours(_turn_upright(opened), input)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"too many pixels; at most {MAX_PIXELS // 10**6} megapixels") from None
    except UnidentifiedImageError:
        raise ImageError("not an image in a format that is read (PNG, JPEG, WebP, BMP, TIFF, GIF, PNM, .npy)") from None
    except Exception as error:  # Pillow's decoders raise almost any exception on damaged files
        raise ImageError(f"cannot be decoded: {one_line(error)}") from None
    values = _resize(image, input)
    if input.range == (0.0, 65535.0) and image.mode in ("L", "RGB"):
        values *= np.float32(257)
    _check_range(values, input)
    return DecodedImage(values, frames, sides=(image.height, image.width))


def _turn_upright(image: ImageFile.ImageFile) -> Image.Image:
    """Turns a picture as its EXIF or XMP data say; Pillow has turned a TIFF already."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return image
    turn = _UPRIGHT.get(_find_orientation(image.info))
    return image if turn is None else image.transpose(turn)


def _find_orientation(info: dict[str | tuple[int, int], Any]) -> int:
    """Returns the orientation by EXIF data, or else by XMP; 1 if neither can be read."""
    exif = info.get("exif")
    if exif is None and "Raw profile type exif" in info:  # the text that ImageMagick writes into a PNG
        try:
            exif = bytes.fromhex("".join(str(info["Raw profile type exif"]).split("\n")[3:]))
        except ValueError:
            exif = b""
    orientation = read_orientation(exif) if exif else None
    if orientation is None:
        xmp = info.get("xmp") or info.get("XML:com.adobe.xmp") or b""
        match = _XMP_ORIENTATION.search(xmp if isinstance(xmp, bytes) else str(xmp).encode())
        orientation = int(match[1]) if match else 1
    return orientation


def _convert_colours(image: Image.Image, input: Input) -> Image.Image:
    """Converts a picture to mode L or RGB, or to F if it is grey of more than 8 bits."""
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


def _resize(image: Image.Image, input: Input) -> Pixels:
    """Resizes a picture to the model's sides; returns raw values, float32 [height, width, channels]."""
    height = input.shape[0] or image.height
    width = input.shape[1] or image.width
    if height * width * (input.shape[2] or 1) > MAX_INPUT_VALUES:
        raise ImageError(f"{image.width} x {image.height} pixels; resized to {width} x {height} it is too large")
    if (width, height) != image.size:
        if input.resize == "none":
            raise ImageError(
                f"{image.width} x {image.height} pixels; the model takes {width} x {height} and does not resize"
            )
        holds_integers = image.mode == "F" and not np.any(np.asarray(image) % 1)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        values = np.array(image, dtype=np.float32)
        if holds_integers:
            np.rint(values, out=values)
    else:
        values = np.array(image, dtype=np.float32)
    if values.ndim == 2:
        values = np.repeat(values[..., np.newaxis], 3 if input.colour == "rgb" else 1, axis=-1)
    if values.shape[-1] != input.shape[-1]:
        raise ImageError(f"a {input.colour} picture has {values.shape[-1]} channels; the model takes {input.shape[-1]}")
    return values
