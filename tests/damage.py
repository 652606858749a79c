"""Pictures with parts missing and pictures that ask for too much work, for several tests, and what they cost."""

import contextlib
import io
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from probrt.runtime.bundle.manifest import Input

FREE = Input(shape=[None, None, 3], colour="rgb", resize="none", range=(0, 255))
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def make_photo(height: int = 96, width: int = 128) -> Image.Image:
    """Makes a picture with edges, slopes and noise."""
    rows, columns = np.mgrid[:height, :width]
    noise = np.random.default_rng(3).integers(0, 40, (height, width, 3))
    slopes = np.stack([rows + columns, 2 * rows, 3 * columns], -1) % 216
    return Image.fromarray((slopes + noise).astype(np.uint8))


def encode_image(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def join_png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    return PNG_MAGIC + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def split_png(data: bytes) -> list[tuple[bytes, bytes]]:
    position, chunks = len(PNG_MAGIC), []
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        chunks.append((kind, data[position + 8 : position + 8 + length]))
        position += 12 + length
    return chunks


def make_grey_png(height: int, width: int, rows: bytes, *, interlaced: bool = False) -> bytes:
    """A grey PNG of 8 bits whose pixel data are `rows`, filter bytes included."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, interlaced)
    return join_png([(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")])


def make_adam7_rows(pixels: np.ndarray) -> bytes:
    """Puts the rows of a grey picture into the order of an interlaced PNG."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    parts = [pixels[row::row_step, column::column_step] for row, column, row_step, column_step in passes]
    return b"".join(b"\0" + line.tobytes() for part in parts if part.size for line in part)


def halve_jpegs() -> Iterator[tuple[str, bytes]]:
    """Yields JPEGs of which a part is missing, each with a name; all end properly."""
    photo = make_photo()
    for name, options in {
        "baseline": {},
        "without subsampling": {"subsampling": 0},
        "progressive": {"progressive": True},
        "restarts by row": {"restart_marker_rows": 1},
        "restarts by block": {"restart_marker_blocks": 3},
    }.items():
        for mode in ("RGB", "L"):
            data = encode_image(photo.convert(mode), "JPEG", quality=90, **options)
            begin, end = data.index(b"\xff\xda") + 14, len(data) - 2
            at = lambda share: begin + int(share * (end - begin))  # noqa: E731, B023
            for share in (0.1, 0.5, 0.9):
                yield f"{name} {mode}, cut at {share}", data[: at(share)].rstrip(b"\xff") + b"\xff\xd9"
            for low, high in ((0.4, 0.6), (0.45, 0.55), (0.2, 0.9)):
                yield f"{name} {mode}, without {low} to {high}", data[: at(low)].rstrip(b"\xff") + data[at(high) :]


def patch_tiff(data: bytes, tag: int, factor: float) -> bytes:
    """Multiplies the values of one tag of a little-endian TIFF."""
    patched = bytearray(data)
    (start,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, start)
    for position in range(start + 2, start + 2 + 12 * entries, 12):
        found, kind, count, value = struct.unpack_from("<HHII", data, position)
        if found == tag:
            letter = {3: "H", 4: "I"}[kind]
            size = struct.calcsize(letter) * count
            place = position + 8 if size <= 4 else value
            values = struct.unpack_from(f"<{count}{letter}", data, place)
            struct.pack_into(f"<{count}{letter}", patched, place, *(int(v * factor) for v in values))
    return bytes(patched)


def make_bombs() -> Iterator[tuple[str, bytes]]:
    """Yields files that ask for much memory or time, each with a name; they are quick to make."""
    small = split_png(encode_image(make_photo(8, 8)))
    text = zlib.compress(bytes(1_000_000), 9)
    for kind, body in (
        (b"zTXt", b"a\0\0" + text),
        (b"iTXt", b"a\0\1\0\0\0" + text),
        (b"iCCP", b"a\0\0" + text),
    ):
        yield f"PNG of many {kind.decode()}", join_png([small[0], *[(kind, body)] * 60, *small[1:]])
    yield "PNG of many chunks", join_png([small[0], *[(b"prVt", b"")] * 150_000, *small[1:]])
    tags = struct.pack("<H", 5_000) + b"".join(struct.pack("<HHII", 1_000 + i, 7, 60_000, 8) for i in range(5_000))
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + tags
    exif += bytes(65_000 - len(exif))
    yield (
        "JPEG of overlapping EXIF tags",
        (b"\xff\xd8\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + encode_image(make_photo(), "JPEG")[20:]),
    )
    yield "TIFF of overlapping tags", b"II*\0" + struct.pack("<I", 8) + tags + bytes(2_000_000)
    yield "JPEG of many segments", b"\xff\xd8" + b"\xff\xfe\0\2" * 400_000 + encode_image(make_photo(), "JPEG")[2:]
    yield "PNM in plain text", b"P2\n6000 6000\n255\n" + b"0 " * 36
    yield "PNM of another largest value", b"P6\n6000 6000\n254\n" + bytes(1_000)
    yield "PNM of spaces", b"P2\n2 2\n255\n" + b" " * 2_000_000
    rle = bytearray(encode_image(Image.new("P", (6_000, 6_000)), "BMP")[:1_100])
    struct.pack_into("<I", rle, 30, 1)
    yield "BMP of runs", bytes(rle)


def make_large_bombs() -> Iterator[tuple[str, bytes]]:
    """Yields more of them, complete and slow to make."""
    for side in (9_000, 13_000, 20_000):
        black = zlib.compress(bytes((side // 8 + 1) * side), 9)
        header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
        yield f"PNG of {side} squared", join_png([(b"IHDR", header), (b"IDAT", black), (b"IEND", b"")])
    for format in ("GIF", "WEBP"):
        flat = Image.new("L", (9_000, 9_000))
        data = encode_image(flat, format, **({"lossless": True, "method": 0} if format == "WEBP" else {}))
        yield f"{format} of 81 megapixels", data
    yield "JPEG of 81 megapixels", encode_image(Image.new("L", (9_000, 9_000)), "JPEG")
    yield "TIFF of 81 megapixels", encode_image(Image.new("1", (9_000, 9_000)), "TIFF", compression="tiff_lzw")
    yield "PNG of one column", make_grey_png(40_000_000, 1, bytes(80_000_000))
    yield "PNG of one row", make_grey_png(1, 40_000_000, bytes(40_000_001))
    small = split_png(encode_image(make_photo(8, 8)))
    for kind, body in ((b"zTXt", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0"), (b"iCCP", b"a\0\0")):
        huge = zlib.compress(bytes(300_000_000), 9)
        yield f"PNG of a huge {kind.decode()}", join_png([small[0], (kind, body + huge), *small[1:]])
    flat = encode_image(Image.new("L", (6_300, 6_300)), "JPEG", progressive=True)
    scan = flat[flat.rindex(b"\xff\xda") : -2]
    yield "JPEG of 200 scans", flat[:-2] + 200 * scan + b"\xff\xd9"


@dataclass
class Cost:
    """What a block of a program took: seconds of the processor, and megabytes above the memory at its start."""

    seconds: float = 0.0
    growth: float = 0.0


@contextlib.contextmanager
def measure_peak() -> Iterator[Cost]:
    """Measures a block. The process should be a fresh one: Python gives memory back late."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    cost, before, begin = Cost(), read_peak(), time.process_time()
    yield cost
    cost.seconds, cost.growth = time.process_time() - begin, read_peak() - before


def read_peak() -> float:
    """The largest resident memory so far, in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
