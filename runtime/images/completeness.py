"""Finds pictures that Pillow decodes although a part of their pixels is missing. JPEG has its own file, `jpeg.py`."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, TiffImagePlugin

from probrt.runtime.errors import ImageError
from probrt.runtime.images.budgets import PNG_MAGIC
from probrt.runtime.images.jpeg import decode_whole, is_checkable, read_layout

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of the colour types of a PNG
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
_BLOCK = 1 << 20
_RAW, _JPEG = 1, 7  # the values of TIFF's Compression


def check_png(data: bytes, image: Image.Image) -> None:
    """Raises ImageError where the pixel data of a decoded PNG end before the last row.

    Pillow leaves the rows that the data lack at 0, so only pictures with such a last row need a count.
    """
    width, height, bits, colours, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, len(PNG_MAGIC) + 8)
    last_row = np.asarray(image.crop((0, image.height - 1, image.width, image.height)))
    if not interlaced and last_row.any():
        return
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    expected = 0
    for first_row, first_column, row_step, column_step in passes:
        rows, columns = -((first_row - height) // row_step), -((first_column - width) // column_step)
        if rows > 0 and columns > 0:
            expected += rows * (1 + (columns * bits * _CHANNELS[colours] + 7) // 8)
    if _count_inflated(data, expected) < expected:
        raise ImageError("a PNG whose pixels end early: a part of the picture is missing")


def check_tiff(data: bytes, image: TiffImagePlugin.TiffImageFile) -> None:
    """Raises ImageError where the strips or tiles of an opened TIFF hold less than their part of the picture.

    Pillow ignores the sizes of uncompressed ones, and libtiff fills JPEG ones with grey.
    """
    tags = image.tag_v2
    offsets = tags.get(273, tags.get(324))
    sizes = tags.get(279, tags.get(325))
    if offsets is None or sizes is None:
        return
    compression = tags.get(259, _RAW)
    if compression == _JPEG:
        tables = bytes(tags.get(347, b""))
        for offset, size in zip(offsets, sizes, strict=False):
            _check_jpeg_strip(tables, data[offset : offset + size])
    elif compression == _RAW and 324 not in tags and tags.get(262) != 6:
        depths, width = tags.get(258, (1,))[: tags.get(277, 1)], tags[256]
        planes = depths if tags.get(284, 1) == 2 else (sum(depths),)
        row = sum((width * depth + 7) // 8 for depth in planes)
        if sum(sizes) < row * tags[257]:
            raise ImageError("a TIFF whose strips are too short: a part of the picture is missing")


def _count_inflated(data: bytes, wanted: int) -> int:
    """Counts the bytes that the pixel data of a PNG inflate to, up to `wanted` or a little more."""
    inflater, count, position = zlib.decompressobj(), 0, len(PNG_MAGIC)
    while position + 8 <= len(data) and count < wanted and not inflater.eof:
        length, kind = struct.unpack_from(">I4s", data, position)
        block = data[position + 8 : position + 8 + length] if kind == b"IDAT" else b""
        while block and count < wanted and not inflater.eof:
            count += len(inflater.decompress(block, _BLOCK))
            block = inflater.unconsumed_tail
        position += 12 + length
    return count


def _check_jpeg_strip(tables: bytes, strip: bytes) -> None:
    """Decodes one strip or tile by itself."""
    stream = tables[:-2] + strip[2:] if tables else strip
    layout = read_layout(stream)
    if is_checkable(layout):
        with Image.open(io.BytesIO(stream), formats=("JPEG",)) as image:
            decode_whole(stream, image, layout)
