"""PNG files as bytes."""

import io
import struct
import zlib

import numpy as np
import numpy.typing as npt
from PIL import Image


def encode_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A PNG of 8-bit pixels, [height, width], [height, width, 1] or [height, width, 3]."""
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels).save(stream, "PNG")
    return stream.getvalue()


def encode_grey_png(values: npt.NDArray[np.integer]) -> bytes:
    """A grey PNG of uint8 or uint16 [height, width]; for small maps ten times as fast as `encode_png`."""
    height, width = values.shape
    depth = 8 * values.dtype.itemsize
    big_endian = np.ascontiguousarray(values, values.dtype.newbyteorder(">")).view(np.uint8).reshape(height, -1)
    lines = np.zeros((height, big_endian.shape[1] + 1), np.uint8)  # each line begins with its filter: 0, none
    lines[:, 1:] = big_endian
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    body = zlib.compress(lines.tobytes(), 1)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
