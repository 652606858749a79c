"""Encodes an image in the forms that picture files take every day, to check that a graph decodes each of them."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from probrt.runtime.images.orientation import ORIENTATION_TAG


def encode_forms(pixels: npt.NDArray[np.uint8]) -> list[bytes]:
    """Returns PNGs with and without transparency and palette, and JPEGs, plain and turned.

    pixels: [height, width, 1 or 3]. Upright, every file has these sides.
    """
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    alpha = Image.fromarray(np.linspace(0, 255, image.height * image.width).astype(np.uint8).reshape(pixels.shape[:2]))
    transparent = image.convert("RGBA")
    transparent.putalpha(alpha)
    palette = image.convert("RGB").quantize(16)
    turned = Image.Exif()
    turned[ORIENTATION_TAG] = 6
    mirrored = Image.Exif()
    mirrored[ORIENTATION_TAG] = 2
    return [
        _encode(image, "PNG"),
        _encode(transparent, "PNG"),
        _encode(transparent.convert("LA"), "PNG"),
        _encode(palette, "PNG"),
        _encode(palette, "PNG", transparency=bytes(range(0, 256, 16))),
        _encode(image.convert("1"), "PNG"),
        _encode(image, "JPEG"),
        _encode(image, "JPEG", progressive=True),
        _encode(image.convert("L"), "JPEG", exif=mirrored),
        _encode(image.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=turned),
    ]


def _encode(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()
