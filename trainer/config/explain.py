"""Explains the faults of a config: the path of the key in the file, what is there, and what the schema allows."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from probrt.trainer.extensions import FieldType, convert_record, union_of

# A path in the settings: keys of tables and indices of lists.
KeyPath = tuple[str | int, ...]
T = TypeVar("T")

# How many faults are looked for.
_MOST = 20


def explain_faults(schema: type[T], settings: dict[str, Any], error: msgspec.ValidationError) -> str:
    """Returns every fault of some settings, in one line.

    error: the one that `convert_record` raised for them. It is mended in a copy, and the next one is looked for, as far
    as an optional key can be left out.
    """
    explanations = []
    missing = [format_path(path) for path in find_missing(inspect.type_info(schema), settings)]
    if missing:
        explanations.append(
            f"missing: {', '.join(missing)}; `probrt train CONFIG --print-config` says what each key means"
        )
    settings = copy.deepcopy(settings)
    fault: msgspec.ValidationError | None = error
    while fault is not None and len(explanations) <= _MOST:
        path = _faulty_path(str(fault))
        if str(fault).startswith("Object missing required field"):
            path = path[:1]  # without the whole table, the faults of the others show
        else:
            explanations.append(_explain_fault(str(fault), schema, settings))
        parent = _value_at(path[:-1], settings)
        if not path or not isinstance(parent, dict):
            break
        del parent[path[-1]]
        try:
            convert_record(settings, schema)
            fault = None
        except msgspec.ValidationError as next_fault:
            fault = next_fault
    return "; ".join(dict.fromkeys(explanations))


def find_missing(schema: inspect.Type, settings: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yields the paths of required keys that are absent, in the order of the schema."""
    record = select_record(schema, settings)
    if isinstance(record, inspect.ListType) and isinstance(settings, list):
        for index, item in enumerate(settings):
            yield from find_missing(record.item_type, item, (*path, index))
    if not isinstance(record, inspect.StructType) or not isinstance(settings, dict):
        return
    tag = settings.get(record.tag_field) if record.tag_field else None
    if record.tag_field and tag is None:
        yield (*path, record.tag_field)
    if record.tag_field and tag not in (None, record.tag):
        return  # an unknown class has unknown keys
    for field in record.fields:
        if field.encode_name in settings:
            yield from find_missing(field.type, settings[field.encode_name], (*path, field.encode_name))
        elif field.required:
            yield (*path, field.encode_name)


def format_path(path: KeyPath) -> str:
    """Formats a path as the file has it, such as heads[0].labels."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def _split_message(message: str) -> tuple[str, KeyPath]:
    """Splits msgspec's message into the fault and its path."""
    # The record of an extension has a place of its own, which comes before the place of the field that holds it.
    fault, *places = message.split(" - at `$")
    location = "".join(place.rstrip("`") for place in reversed(places)).lstrip(".")
    return fault, tuple(int(step) if step.isdigit() else step for step in re.findall(r"[^.\[\]]+", location))


def _faulty_path(message: str) -> KeyPath:
    fault, path = _split_message(message)
    unknown = re.match(r"Object contains unknown field `(.*)`", fault)
    return (*path, unknown[1]) if unknown else path


def _explain_fault(message: str, schema: type, settings: dict[str, Any]) -> str:
    """Returns msgspec's message in our words, with the choices that the schema allows.

    message: of the ValidationError that msgspec raises for `settings` under `schema`.
    """
    fault, path = _split_message(message)
    location = format_path(path)
    root = inspect.type_info(schema)
    unknown = re.match(r"Object contains unknown field `(.*)`", fault)
    if unknown:
        keys = _keys(select_record(_type_at(path, root, settings), _value_at(path, settings)))
        known = f"unknown key; known here: {', '.join(keys)}{_suggest(unknown[1], keys)}"
        return f"{format_path((*path, unknown[1]))}: {known}"
    explanation = f"{location}: {fault[0].lower()}{fault[1:]}" if location else fault
    choices = _choices(path, root, settings) if fault.startswith("Invalid") else []
    suggestion = _suggest(str(_value_at(path, settings)), choices)
    number = ", or give a number" if _takes_number(_type_at(path, root, settings)) else ""
    return f"{explanation}; choose from {', '.join(choices)}{number}{suggestion}" if choices else explanation


def _suggest(word: str, words: Sequence[str]) -> str:
    alike = difflib.get_close_matches(word.lower(), words, 1)
    return f"; did you mean {alike[0]}?" if alike else ""


def _choices(path: KeyPath, root: inspect.Type, settings: Any) -> list[str]:
    """Returns the words that the key at the end of a path may hold; none if its type is no literal."""
    return literals(_type_at(path, root, settings))


def literals(schema: inspect.Type) -> list[str]:
    """Returns the words that a value of a type may be; none if the type is no literal."""
    schema = _plain_type(schema)
    if isinstance(schema, inspect.UnionType):
        return [word for member in schema.types for word in literals(member)]
    return [str(word) for word in schema.values] if isinstance(schema, inspect.LiteralType) else []


def _takes_number(schema: inspect.Type) -> bool:
    schema = _plain_type(schema)
    if isinstance(schema, inspect.UnionType):
        return any(map(_takes_number, schema.types))
    return isinstance(schema, inspect.IntType | inspect.FloatType)


def _type_at(path: KeyPath, root: inspect.Type, settings: Any) -> inspect.Type:
    """Returns the schema's type at a path of the settings."""
    schema = root
    for step in path:
        schema = select_record(schema, settings)
        settings = settings[step]
        if isinstance(schema, inspect.ListType):
            schema = schema.item_type
        elif isinstance(schema, inspect.StructType):
            schema = next((field.type for field in schema.fields if field.encode_name == step), inspect.AnyType())
    return schema


def select_record(schema: inspect.Type, settings: Any) -> inspect.Type:
    """Returns, among several records, the one whose tag the settings give, or the first; other types stay."""
    records = list(records_of(schema))
    for record in records:
        if isinstance(settings, dict) and settings.get(record.tag_field) == record.tag:
            return record
    return records[0] if records else _plain_type(schema)


def records_of(schema: inspect.Type) -> Iterator[inspect.StructType]:
    """Yields the record types that a type consists of."""
    schema = _plain_type(schema)
    if isinstance(schema, inspect.UnionType):
        for member in schema.types:
            yield from records_of(member)
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
