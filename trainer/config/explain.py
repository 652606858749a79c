"""Explains a fault in a config: the path of the key in the file, what is there, and what the schema allows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from msgspec import inspect

from probrt.trainer.extensions import FieldType, union_of

# A path in the settings: keys of tables and indices of lists.
KeyPath = list[str | int]


def explain_fault(message: str, schema: type, settings: dict[str, Any]) -> str:
    """Returns msgspec's message in our words, with the choices that the schema allows.

    message: of the ValidationError that msgspec raises for `settings` under `schema`.
    """
    # The record of an extension has a place of its own, which comes before the place of the field that holds it.
    fault, *places = message.split(" - at `$")
    location = "".join(place.rstrip("`") for place in reversed(places)).lstrip(".")
    path: KeyPath = [int(step) if step.isdigit() else step for step in re.findall(r"[^.\[\]]+", location)]
    root = inspect.type_info(schema)
    unknown = re.match(r"Object contains unknown field `(.*)`", fault)
    if unknown:
        keys = _keys(_select_record(_type_at(path, root, settings), _value_at(path, settings)))
        return f"{location + '.' if location else ''}{unknown[1]}: unknown key; known here: {', '.join(keys)}"
    explanation = f"{location}: {fault[0].lower()}{fault[1:]}" if location else fault
    choices = _choices(path, root, settings) if fault.startswith("Invalid") else []
    return f"{explanation}; choose from {', '.join(choices)}" if choices else explanation


def _choices(path: KeyPath, root: inspect.Type, settings: Any) -> list[str]:
    """Returns the words that the key at the end of a path may hold; none if its type is no literal."""
    schema = _plain_type(_type_at(path, root, settings))
    return [str(word) for word in schema.values] if isinstance(schema, inspect.LiteralType) else []


def _type_at(path: KeyPath, root: inspect.Type, settings: Any) -> inspect.Type:
    """Returns the schema's type at a path of the settings."""
    schema = root
    for step in path:
        schema = _select_record(schema, settings)
        settings = settings[step]
        if isinstance(schema, inspect.ListType):
            schema = schema.item_type
        elif isinstance(schema, inspect.StructType):
            schema = next((field.type for field in schema.fields if field.encode_name == step), inspect.AnyType())
    return schema


def _select_record(schema: inspect.Type, settings: Any) -> inspect.Type:
    """Returns, among several records, the one whose tag the settings give, or the first; other types stay."""
    records = list(_records(schema))
    for record in records:
        if isinstance(settings, dict) and settings.get(record.tag_field) == record.tag:
            return record
    return records[0] if records else _plain_type(schema)


def _records(schema: inspect.Type) -> Iterator[inspect.StructType]:
    """Yields the record types that a type consists of."""
    schema = _plain_type(schema)
    if isinstance(schema, inspect.UnionType):
        for member in schema.types:
            yield from _records(member)
    elif isinstance(schema, inspect.StructType):
        yield schema


def _plain_type(schema: inspect.Type) -> inspect.Type:
    """Returns a type without its constraints; for the field of an extension, the union of its classes."""
    while isinstance(schema, inspect.Metadata):
        schema = schema.type
    if isinstance(schema, inspect.CustomType) and isinstance(schema.cls, FieldType):
        return inspect.type_info(union_of(schema.cls.point.classes().values()))
    return schema


def _value_at(path: KeyPath, settings: Any) -> Any:
    for step in path:
        settings = settings[step]
    return settings


def _keys(schema: inspect.Type) -> list[str]:
    """Returns the keys of a record in a config, the tag first; none for other types."""
    if not isinstance(schema, inspect.StructType):
        return []
    return ([schema.tag_field] if schema.tag_field else []) + [field.encode_name for field in schema.fields]
