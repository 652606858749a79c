"""Writes a small FlatBuffer from plain values, without generated code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Union


@dataclass(frozen=True)
class Byte:
    """A value of one byte: an enum, or which table a union holds."""

    value: int


@dataclass(frozen=True)
class Word:
    """An unsigned value of four bytes."""

    value: int


@dataclass(frozen=True)
class Floats:
    """A vector of float32."""

    values: tuple[float, ...]


Value = Union[Byte, Word, Floats, str, "Table", list["Table"]]
Table = Mapping[int, Value]
"""The fields of a table by their place in the schema; those that are left out have their defaults."""


def write_flatbuffer(root: Table, identifier: bytes) -> bytes:
    """Returns the bytes of a FlatBuffer; `identifier` are the four bytes that tell what it is."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(_write(builder, root), file_identifier=identifier)
    return bytes(builder.Output())


def _write(builder: Any, value: Value) -> int:
    """Writes a value that others point to; returns where it lies."""
    if isinstance(value, str):
        return int(builder.CreateString(value))
    if isinstance(value, Floats):
        builder.StartVector(4, len(value.values), 4)
        for item in reversed(value.values):  # a builder writes from the end
            builder.PrependFloat32(item)
        return int(builder.EndVector())
    if isinstance(value, list):
        places = [_write(builder, item) for item in value]
        builder.StartVector(4, len(places), 4)
        for place in reversed(places):
            builder.PrependUOffsetTRelative(place)
        return int(builder.EndVector())
    if isinstance(value, Byte | Word):
        raise TypeError("a number lies in its table, nothing points to it")
    return _write_table(builder, value)


def _write_table(builder: Any, table: Table) -> int:
    # What a table points to must be complete before the table begins.
    places = {slot: _write(builder, value) for slot, value in table.items() if not isinstance(value, Byte | Word)}
    builder.StartObject(max(table, default=-1) + 1)
    for slot, value in table.items():
        if isinstance(value, Byte):
            builder.PrependUint8Slot(slot, value.value, 0)
        elif isinstance(value, Word):
            builder.PrependUint32Slot(slot, value.value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, places[slot], 0)
    return int(builder.EndObject())
