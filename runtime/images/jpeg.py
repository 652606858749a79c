"""Decodes JPEG pictures that are whole, and refuses those that end early.

libjpeg fills what a file lacks with grey, and reports that only as a warning, which Pillow drops. Three checks find it.

* The decoder gets the file piece by piece. A piece ends where some entropy-coded data end, and has some filler in place
  of the marker that follows. A decoder with all blocks of the piece looks for a marker: it takes the filler for stray
  bytes, which change no pixel. A decoder that needs more blocks does not consume all of the filler.
* The restart markers of a scan must be in order, and as many as the picture needs.
* Every bit of every coefficient of a progressive picture must be in the file.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from PIL import Image, ImageFile

from probrt.runtime.errors import ImageError

MAX_SEGMENTS = 10_000
# A scan of 40 megapixels takes .13 s, however few bytes it has.
MAX_SCANS = 100
MAX_SCANNED_PIXELS = 1_000_000_000

_MARKER = re.compile(rb"\xff([\x01-\xfe])")
# Bits of 1 are no code of any table: each block takes at least 17 of them.
_FILLER = b"\xff\x00"
_LOOKAHEAD = 10  # fillers; the decoder reads up to 8 bytes ahead
_PROBES = 4  # fillers, one by one: some MCU ends exactly at the end of the data
_RESTARTS = range(0xD0, 0xD8)
_EOI, _SOS, _DRI, _APP1 = 0xD9, 0xDA, 0xDD, 0xE1
_HUFFMAN_FRAMES = frozenset((0xC0, 0xC1, 0xC2))
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = 0xC2
_WITHOUT_LENGTH = frozenset((0x01, *_RESTARTS, 0xD8))
_CUT_OFF = "a JPEG that ends early: a part of the picture is missing"


@dataclass
class JpegLayout:
    """What the markers of a JPEG file say.

    ends: where each stretch of entropy-coded data ends; a piece of the file ends there too. frame: the marker of the
    frame. sides: (height, width). samplings: by component, blocks per MCU (down, across). restart: MCUs between two
    restart markers; 0 if there are none. exif: the EXIF data of all segments. ended: whether there is an end marker.
    missing: by component, the lowest bit that has come of each of the 64 coefficients; only of progressive frames.
    """

    ends: list[int] = field(default_factory=list)
    scans: int = 0
    frame: int = 0
    sides: tuple[int, int] = (0, 0)
    samplings: dict[int, tuple[int, int]] = field(default_factory=dict)
    restart: int = 0
    exif: bytes = b""
    ended: bool = False
    missing: dict[int, list[int]] = field(default_factory=dict)


def read_layout(data: bytes) -> JpegLayout:
    """Reads the markers of a JPEG file up to the end of its first picture; ImageError if it asks for too much work."""
    layout = JpegLayout()
    position, segments = 2, 0
    while (match := _MARKER.search(data, position)) is not None:
        marker, position = match[1][0], match.end()
        if marker == _EOI:
            layout.ended = True
            break
        if marker in _WITHOUT_LENGTH:
            continue
        segments += 1
        if segments > MAX_SEGMENTS:
            raise ImageError(f"a JPEG of more than {MAX_SEGMENTS} segments")
        length = int.from_bytes(data[position : position + 2], "big")
        body = data[position + 2 : position + length]
        position += length
        if marker in _FRAMES:
            _read_frame(layout, marker, body)
        elif marker == _APP1 and body.startswith(b"Exif\0"):
            layout.exif += body[6:]
        elif marker == _DRI:
            layout.restart = int.from_bytes(body[:2], "big")
        elif marker == _SOS:
            stretches = _count_stretches(layout, body)
            _read_scan(layout, body)
            position = _find_scan_end(data, position, layout.ends, stretches)
    return layout


def is_checkable(layout: JpegLayout) -> bool:
    """Whether `decode_whole` can decode it: Huffman codes, not arithmetic ones."""
    return layout.frame in _HUFFMAN_FRAMES and bool(layout.ends)


def decode_whole(data: bytes, image: ImageFile.ImageFile, layout: JpegLayout) -> None:
    """Decodes the opened, not yet loaded `image` of `data` in place; ImageError if a part of the picture is missing."""
    if any(any(bits) for bits in layout.missing.values()):
        raise ImageError(_CUT_OFF)
    image.load_prepare()
    name, extents, _, arguments = image.tile[0]
    decoder = Image._getdecoder(image.mode, name, arguments, image.decoderconfig)
    try:
        decoder.setimage(image.im, extents)
        for piece in _cut_pieces(data, layout):
            consumed, fault = decoder.decode(piece)
            if consumed < 0:
                break
            if consumed < len(piece):
                raise ImageError(_CUT_OFF)
    finally:
        decoder.cleanup()
    if consumed >= 0:
        raise ImageError(_CUT_OFF)
    if fault < 0:
        raise ImageError("cannot be decoded: a broken JPEG stream")
    image.tile = []


def _cut_pieces(data: bytes, layout: JpegLayout) -> Iterator[bytes]:
    start = 0
    for end in layout.ends:
        yield data[start:end] + _FILLER * _LOOKAHEAD
        yield from (_FILLER for _ in range(_PROBES))
        start = end
    if layout.ended:
        yield bytes((0xFF, _EOI))


def _read_frame(layout: JpegLayout, marker: int, body: bytes) -> None:
    if len(body) < 6:
        raise ImageError("cannot be decoded: a broken JPEG header")
    layout.frame = marker
    layout.sides = (int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big"))
    layout.samplings = {i: (sampling & 15, sampling >> 4) for i, sampling in zip(body[6::3], body[7::3], strict=False)}
    if marker == _PROGRESSIVE:
        layout.missing = {component: [1] * 64 for component in body[6::3]}


def _read_scan(layout: JpegLayout, body: bytes) -> None:
    layout.scans += 1
    pixels = layout.sides[0] * layout.sides[1]
    if layout.scans > MAX_SCANS or layout.scans * pixels > MAX_SCANNED_PIXELS:
        raise ImageError(f"a JPEG of {layout.scans} or more scans; so many are not decoded")
    count = body[0] if body else 0
    if layout.frame == _PROGRESSIVE and len(body) == 4 + 2 * count:
        first, last, bits = body[-3:]
        for component in body[1 : 1 + 2 * count : 2]:
            missing = layout.missing.get(component)
            if missing is not None and last < 64:
                missing[first : last + 1] = [bits & 15] * (last + 1 - first)


def _count_stretches(layout: JpegLayout, body: bytes) -> int:
    """How many stretches of data, with restart markers between them, a scan of the picture needs."""
    components = body[1 : 1 + 2 * (body[0] if body else 0) : 2]
    samplings = [layout.samplings.get(component, (0, 0)) for component in components]
    if not layout.restart or not samplings or min(map(min, samplings)) == 0:
        return 1
    mcus = 1
    for axis in (0, 1):
        side, largest = layout.sides[axis], max(sampling[axis] for sampling in layout.samplings.values())
        if len(samplings) == 1:  # not interleaved: each block is an MCU
            mcus *= _divide_up(_divide_up(side * samplings[0][axis], largest), 8)
        else:
            mcus *= _divide_up(side, 8 * largest)
    return _divide_up(mcus, layout.restart)


def _divide_up(dividend: int, divisor: int) -> int:
    return (dividend + divisor - 1) // divisor


def _find_scan_end(data: bytes, position: int, ends: list[int], expected: int) -> int:
    """Adds the ends of a scan's stretches, and returns where the next segment begins.

    Raises ImageError if there are fewer than expected, or if the restart markers between them are out of order.
    """
    stretches, following = 1, len(data)
    while (match := _MARKER.search(data, position)) is not None:
        end = match.start()
        while data[end - 1] == 0xFF and end > position:  # fill bytes before a marker
            end -= 1
        ends.append(end)
        marker = match[1][0]
        if marker not in _RESTARTS:
            following = match.start()
            break
        if marker != _RESTARTS[(stretches - 1) % 8]:
            raise ImageError(_CUT_OFF)
        stretches, position = stretches + 1, match.end()
    else:
        ends.append(len(data))
    if stretches < expected:
        raise ImageError(_CUT_OFF)
    return following
