"""What is wrong with a config, as the path in the file, what was found there and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from msgspec import inspect

from probrt.trainer.extensions import FieldType, union_of

_Step = str | int


def explained(message: str, kind: type, settings: dict[str, Any]) -> str:
    """msgspec's message about settings that were to be of that kind."""
    # An extension's record adds a place of its own, before the place of the field that holds it.
    what, *places = message.split(" - at `$")
    path = "".join(place.rstrip("`") for place in reversed(places)).lstrip(".")
    steps: list[_Step] = [int(step) if step.isdigit() else step for step in re.findall(r"[^.\[\]]+", path)]
    unknown = re.match(r"Object contains unknown field `(.*)`", what)
    if unknown:
        record = _chosen(_at(steps, inspect.type_info(kind), settings), _value(steps, settings))
        return f"{path + '.' if path else ''}{unknown[1]}: unknown key; known here: {', '.join(_keys(record))}"
    said = f"{path}: {what[0].lower()}{what[1:]}" if path else what
    allowed = _allowed(steps, inspect.type_info(kind), settings) if what.startswith("Invalid") else []
    return f"{said}; choose from {', '.join(allowed)}" if allowed else said


def _allowed(steps: list[_Step], kind: inspect.Type, settings: Any) -> list[str]:
    """The words that the place at the end of the path may hold; none where it holds no word of a list."""
    words = _plain(_at(steps, kind, settings))
    return [str(word) for word in words.values] if isinstance(words, inspect.LiteralType) else []


def _at(steps: list[_Step], kind: inspect.Type, settings: Any) -> inspect.Type:
    """What may be at a path of the settings."""
    for step in steps:
        kind = _chosen(kind, settings)
        settings = settings[step]
        if isinstance(kind, inspect.ListType):
            kind = kind.item_type
        elif isinstance(kind, inspect.StructType):
            kind = next((field.type for field in kind.fields if field.encode_name == step), inspect.AnyType())
    return kind


def _chosen(kind: inspect.Type, settings: Any) -> inspect.Type:
    """Of several records, the one that the settings name."""
    records = list(_records(kind))
    named = [one for one in records if isinstance(settings, dict) and settings.get(one.tag_field) == one.tag]
    return (named or records or [_plain(kind)])[0]


def _records(kind: inspect.Type) -> Iterator[inspect.StructType]:
    """The records that something may be."""
    kind = _plain(kind)
    if isinstance(kind, inspect.UnionType):
        for member in kind.types:
            yield from _records(member)
    elif isinstance(kind, inspect.StructType):
        yield kind


def _plain(kind: inspect.Type) -> inspect.Type:
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    if isinstance(kind, inspect.CustomType) and isinstance(kind.cls, FieldType):
        return inspect.type_info(union_of(kind.cls.point.classes().values()))
    return kind


def _value(steps: list[_Step], settings: Any) -> Any:
    for step in steps:
        settings = settings[step]
    return settings


def _keys(kind: inspect.Type) -> list[str]:
    if not isinstance(kind, inspect.StructType):
        return []
    return ([kind.tag_field] if kind.tag_field else []) + [field.encode_name for field in kind.fields]
