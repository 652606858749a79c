"""Protocol Buffers, read by a table of message types and refused unless every parser must read them alike.

Parsers differ in what they do with a field that is given twice, with bytes that they do not know and with numbers
that are longer than they need be. So a message is accepted only in the form that a serialiser writes: a singular
field once, a key of a map once, numbers in as few bytes as they take, no field that the table lacks. What has passed
`check_message` means the same to this reader and to the framework that runs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from probrt.runtime.errors import BundleError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
# Deeper nesting than any graph has; a recursion limit of our own is a line, Python's is a traceback.
MAX_DEPTH = 64
_MAX_FIELD = (1 << 29) - 1
_WIRE = {"varint": VARINT, "fixed32": FIXED32, "fixed64": FIXED64}
_SIZE = {"fixed32": 4, "fixed64": 8}

Field = tuple[int, "int | memoryview"]
# Message type → field number → type: "varint", "fixed32", "fixed64", "bytes" or a message type; "*" behind it marks a
# repeated field, "@" one that is a map.
Schema = Mapping[str, Mapping[int, str]]


def check_message(content: memoryview, kind: str, schema: Schema, depth: int = MAX_DEPTH) -> None:
    """Raises BundleError unless the bytes are a message of that type as a serialiser writes it."""
    if depth == 0:
        raise BundleError(f"not a protocol buffer: messages inside messages, more than {MAX_DEPTH} deep")
    types = schema[kind]
    seen: set[int] = set()
    packed: set[int] = set()
    keys: set[tuple[int, bytes | int]] = set()
    for field, wire, value in _iterate_fields(content):
        type = types.get(field)
        if type is None:
            raise BundleError(f"field {field} of {kind} is unknown")
        base, repeated, is_map = type.rstrip("*@"), type[-1] in "*@", type[-1] == "@"
        if field in seen and (not repeated or field in packed):
            raise BundleError(f"field {field} of {kind} is given twice")
        is_packed = repeated and base in _WIRE and wire == BYTES
        if field in seen and is_packed:
            raise BundleError(f"field {field} of {kind} is given in two forms")
        seen.add(field)
        if wire != _WIRE.get(base, BYTES) and not is_packed:
            raise BundleError(f"field {field} of {kind} has wire type {wire}")
        if not isinstance(value, memoryview):
            continue
        if is_packed:
            packed.add(field)
            _check_packed(value, base, f"field {field} of {kind}")
        elif base in schema:
            check_message(value, base, schema, depth - 1)
            if is_map:
                key = (field, _read_key(value))
                if key in keys:
                    raise BundleError(f"field {field} of {kind} has a key twice")
                keys.add(key)


def read_fields(message: memoryview) -> Iterator[Field]:
    """Yields (field number, value) of each field: an integer, or the bytes of a string, a message or a packed list.

    Raises BundleError where the bytes are no message.
    """
    for field, _, value in _iterate_fields(message):
        yield field, value


def find_messages(message: memoryview, *path: int) -> Iterator[memoryview]:
    """Yields the messages under a path of field numbers."""
    wanted, *rest = path
    for field, value in read_fields(message):
        if field == wanted and isinstance(value, memoryview):
            if rest:
                yield from find_messages(value, *rest)
            else:
                yield value


def find_all(message: memoryview, kind: str, schema: Schema, wanted: str) -> Iterator[memoryview]:
    """Yields every message of the type `wanted` anywhere in a checked message, itself included."""
    if kind == wanted:
        yield message
    types = schema[kind]
    for field, value in read_fields(message):
        base = types[field].rstrip("*@")
        if isinstance(value, memoryview) and base in schema:
            yield from find_all(value, base, schema, wanted)


def read_text(message: memoryview, field: int) -> str:
    """Returns a string field of a checked message; empty if it is absent."""
    return next((bytes(value).decode("utf-8", "replace") for value in find_messages(message, field)), "")


def _iterate_fields(message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Yields (field number, wire type, value) of each field."""
    place, end = 0, len(message)
    while place < end:
        key, place = _read_varint(message, place)
        field, wire = key >> 3, key & 7
        if not 1 <= field <= _MAX_FIELD:
            raise BundleError(f"not a protocol buffer: field number {field}")
        if wire == VARINT:
            value, place = _read_varint(message, place)
            yield field, wire, value
            continue
        if wire == BYTES:
            size, place = _read_varint(message, place)
        elif wire in (FIXED64, FIXED32):
            size = 8 if wire == FIXED64 else 4
        else:
            raise BundleError(f"not a protocol buffer: wire type {wire}")
        if size > end - place:
            raise BundleError("not a protocol buffer: it ends in the middle of a field")
        yield field, wire, message[place : place + size]
        place += size


def _read_key(entry: memoryview) -> bytes | int:
    """Returns the key of an entry of a map; 0 for one that is left out, 0 or empty, which are the same key."""
    key = next((value for field, value in read_fields(entry) if field == 1), 0)
    return (bytes(key) if isinstance(key, memoryview) else key) or 0


def _check_packed(content: memoryview, base: str, where: str) -> None:
    if base in _SIZE:
        if len(content) % _SIZE[base]:
            raise BundleError(f"{where} ends in the middle of a number")
        return
    place = 0
    while place < len(content):
        _, place = _read_varint(content, place)


def _read_varint(message: memoryview, place: int) -> tuple[int, int]:
    """Returns a number of at most 64 bits and the place behind it; BundleError if fewer bytes would hold it."""
    value = shift = 0
    start = place
    while place < len(message) and shift < 70:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            if (byte == 0 and place - start > 1) or value >= 1 << 64:
                raise BundleError("not a protocol buffer: a number in more bytes than it takes")
            return value, place
    raise BundleError("not a protocol buffer: it ends in the middle of a number")
