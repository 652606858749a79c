"""Protocol Buffers' wire format, read without a schema: enough to look into a graph before anything loads it."""

from collections.abc import Iterator

from probrt.runtime.errors import BundleError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
Field = tuple[int, int | memoryview]


def fields(message: memoryview) -> Iterator[Field]:
    """(number, value) of each field: an integer, or the bytes of a string, a message or a packed list.

    Raises BundleError where the bytes are no message.
    """
    place, end = 0, len(message)
    while place < end:
        key, place = _varint(message, place)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, place = _varint(message, place)
            yield number, value
            continue
        if kind == BYTES:
            size, place = _varint(message, place)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
        else:
            raise BundleError(f"not a protocol buffer: wire type {kind}")
        if size > end - place:
            raise BundleError("not a protocol buffer: it ends in the middle of a field")
        yield number, message[place : place + size]
        place += size


def inside(message: memoryview, *path: int) -> Iterator[memoryview]:
    """The messages that lie under a path of field numbers."""
    number, *rest = path
    for found, value in fields(message):
        if found == number and isinstance(value, memoryview):
            if rest:
                yield from inside(value, *rest)
            else:
                yield value


def text(message: memoryview, number: int) -> str:
    """A string field, the last one if it is there several times, as every parser reads it; empty if it is absent."""
    found = ""
    for value in inside(message, number):
        found = bytes(value).decode("utf-8", "replace")
    return found


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(message) and shift < 70:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
    raise BundleError("not a protocol buffer: it ends in the middle of a number")
