"""Reads the orientation of a picture from EXIF data, without reading any other entry of it."""

import struct

ORIENTATION_TAG = 0x0112
_INTEGER_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}
_ENTRY_SIZE = 12


def read_orientation(exif: bytes) -> int | None:
    """Returns the orientation, 1 to 8 in a sound file; None if there is none or the data cannot be read."""
    for _ in range(2):
        exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return None
    (start,) = struct.unpack_from(order + "I", exif, 4)
    if start + 2 > len(exif):
        return None
    (count,) = struct.unpack_from(order + "H", exif, start)
    orientation = None
    for position in range(start + 2, start + 2 + _ENTRY_SIZE * count, _ENTRY_SIZE):
        if position + _ENTRY_SIZE > len(exif):
            break
        tag, kind, values = struct.unpack_from(order + "HHI", exif, position)
        if tag == ORIENTATION_TAG and values == 1 and kind in _INTEGER_TYPES:
            (orientation,) = struct.unpack_from(order + _INTEGER_TYPES[kind], exif, position + 8)
    return orientation
