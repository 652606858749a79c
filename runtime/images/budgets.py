"""Bounds the work that the header of a picture asks for, before Pillow reads it.

A small file can ask for much: Pillow decodes some formats in Python, value by value, inflates every text chunk of a
PNG, and copies the value of every tag of a TIFF or of EXIF data, even where tags share their bytes.
"""

import re
import struct

from probrt.runtime.errors import ImageError
from probrt.runtime.images.jpeg import JpegLayout

MAX_PIXELS = 40_000_000
MAX_SIDE = 65_535
MAX_PNG_CHUNKS = 100_000
MAX_COMPRESSED_TEXTS = 16  # Pillow inflates each of them to 1 MB at most
# Pillow takes up to 2 microseconds for each of these samples, in Python.
MAX_SLOW_SAMPLES = 2_000_000
_SLOW_BYTES_PER_SAMPLE = 16
_SPARE_BYTES = 65_536
_SPARE_TAG_BYTES = 4 << 20

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_TEXTS = frozenset((b"zTXt", b"iTXt", b"iCCP"))
_PNM = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])+(\d{1,10})")
_TAG_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_RLE = (1, 2)  # of a BMP


def check_sides(width: int, height: int) -> None:
    """Raises ImageError for a picture of too many pixels or too long a side."""
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width} x {height} pixels; at most {MAX_PIXELS // 10**6} megapixels")
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"{width} x {height} pixels; at most {MAX_SIDE} a side")


def check_budget(data: bytes, layout: JpegLayout | None) -> None:
    """Raises ImageError for the bytes of a picture that would cost more time or memory than its pixels are worth."""
    if layout is not None:
        check_sides(layout.sides[1], layout.sides[0])
        _check_tags(layout.exif)
    elif data.startswith(PNG_MAGIC):
        _check_png(data)
    elif data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        _check_tags(data)
    elif data[:1] == b"P" and data[1:2] in b"123456":
        _check_pnm(data)
    elif data.startswith(b"BM"):
        _check_bmp(data)


def _check_png(data: bytes) -> None:
    if data[12:16] == b"IHDR" and len(data) >= 24:
        check_sides(*struct.unpack_from(">II", data, 16))
    position, chunks, texts = len(PNG_MAGIC), 0, 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        position += 12 + length
        chunks, texts = chunks + 1, texts + (kind in _TEXTS)
        if chunks > MAX_PNG_CHUNKS or texts > MAX_COMPRESSED_TEXTS:
            raise ImageError(f"a PNG of more than {MAX_PNG_CHUNKS} chunks or {MAX_COMPRESSED_TEXTS} compressed texts")
        if kind == b"IEND":
            break


def _check_tags(data: bytes) -> None:
    """Refuses tags whose values overlap: read one by one they need more memory than the file has bytes."""
    order = "<" if data[:2] == b"II" else ">"
    big = b"+" in data[2:4]
    header, counter, entry = ("Q", "Q", "HHQQ") if big else ("I", "H", "HHII")
    try:
        (start,) = struct.unpack_from(order + header, data, 8 if big else 4)
        (count,) = struct.unpack_from(order + counter, data, start)
        start += struct.calcsize(order + counter)
        size, total = struct.calcsize(order + entry), 0
        for position in range(start, min(start + size * count, len(data) - size + 1), size):
            _, kind, values, offset = struct.unpack_from(order + entry, data, position)
            length = values * _TAG_SIZES.get(kind, 0)
            total += length if offset + length <= len(data) else 0
            if total > len(data) + _SPARE_TAG_BYTES:
                raise ImageError("tags that hold more bytes than the file has")
    except (struct.error, OverflowError):  # Pillow says what is wrong
        return


def _check_pnm(data: bytes) -> None:
    """Refuses large files in the forms that Pillow decodes in Python: plain text, and most largest values."""
    plain, colours = data[1:2] in b"123", 3 if data[1:2] in b"36" else 1
    numbers: list[int] = []
    position = 2
    while len(numbers) < (2 if data[1:2] in b"14" else 3):
        match = _PNM.match(data, position, position + _SPARE_BYTES)
        if match is None:
            raise ImageError("cannot be decoded: a broken PNM header")
        numbers.append(int(match[1]))
        position = match.end()
    check_sides(numbers[0], numbers[1])
    samples = numbers[0] * numbers[1] * colours
    fast = not plain and (len(numbers) == 2 or numbers[2] == 255 or (numbers[2] == 65_535 and colours == 1))
    if not fast:
        _check_slow(data, samples, "a PNM in plain text or with another largest value than 255 or 65535")


def _check_bmp(data: bytes) -> None:
    if len(data) >= 34 and struct.unpack_from("<I", data, 30)[0] in _RLE and struct.unpack_from("<I", data, 14)[0] > 12:
        width, height = struct.unpack_from("<ii", data, 18)
        _check_slow(data, abs(width * height), "a run-length encoded BMP")


def _check_slow(data: bytes, samples: int, form: str) -> None:
    if samples > MAX_SLOW_SAMPLES or len(data) > _SLOW_BYTES_PER_SAMPLE * samples + _SPARE_BYTES:
        raise ImageError(
            f"{form}, of {samples} values in {len(data)} bytes; at most {MAX_SLOW_SAMPLES} values are read"
        )
