"""Reads the wire format of Protocol Buffers without a schema: enough to inspect a graph before anything loads it."""

from collections.abc import Iterator

from probrt.runtime.errors import BundleError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
Field = tuple[int, int | memoryview]


def read_fields(message: memoryview) -> Iterator[Field]:
    """Yields (number, value) of each field.

    A value is an integer, or the bytes of a string, a message or a packed list. Raises BundleError where the bytes are
    no message.
    """
    place, end = 0, len(message)
    while place < end:
        key, place = _read_varint(message, place)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, place = _read_varint(message, place)
            yield number, value
            continue
        if kind == BYTES:
            size, place = _read_varint(message, place)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
        else:
            raise BundleError(f"not a protocol buffer: wire type {kind}")
        if size > end - place:
            raise BundleError("not a protocol buffer: it ends in the middle of a field")
        yield number, message[place : place + size]
        place += size


def find_messages(message: memoryview, *path: int) -> Iterator[memoryview]:
    """Yields the messages under a path of field numbers."""
    number, *rest = path
    for field, value in read_fields(message):
        if field == number and isinstance(value, memoryview):
            if rest:
                yield from find_messages(value, *rest)
            else:
                yield value


def read_text(message: memoryview, number: int) -> str:
    """Returns a string field, or an empty string without it; of several the last one, as every parser does."""
    string = ""
    for value in find_messages(message, number):
        string = bytes(value).decode("utf-8", "replace")
    return string


def _read_varint(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(message) and shift < 70:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
    raise BundleError("not a protocol buffer: it ends in the middle of a number")
