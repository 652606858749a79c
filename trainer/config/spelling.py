"""Understands other spellings in a config: colour words, capitals, numbers for labels, spaces in the names of heads."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from msgspec import inspect

from probrt.trainer.config.explain import KeyPath, format_path, literals, records_of, select_record

Note = Callable[[str], None]

_KEYS = {"color": "colour", "normalization": "normalisation"}
_WORDS = {"gray": "grey", "grayscale": "grey", "greyscale": "grey", "l": "grey"}


def respell(schema: type, settings: dict[str, Any], note: Note) -> dict[str, Any]:
    """Returns settings in the spelling of the schema; `note` takes a line for each change that a person may not expect.

    What is not understood stays, for the schema to refuse.
    """
    settings = _respell(inspect.type_info(schema), settings, (), note)
    heads = settings.get("heads")
    if isinstance(heads, list):
        settings["heads"] = [_respell_head(head, note) if isinstance(head, dict) else head for head in heads]
    return settings


def _respell(schema: inspect.Type, value: Any, path: KeyPath, note: Note) -> Any:
    if isinstance(value, str):
        return _respell_word(literals(schema), value, path, note)
    if isinstance(value, dict) and any(records_of(schema)):
        return _respell_record(schema, value, path, note)
    record = select_record(schema, value)
    if isinstance(value, list) and isinstance(record, inspect.ListType):
        return [_respell(record.item_type, item, (*path, index), note) for index, item in enumerate(value)]
    return value


def _respell_record(schema: inspect.Type, value: dict[str, Any], path: KeyPath, note: Note) -> dict[str, Any]:
    value = dict(value)
    tag_fields = {record.tag_field for record in records_of(schema) if record.tag_field}
    for tag_field in tag_fields & value.keys():
        tags = [str(record.tag) for record in records_of(schema)]
        value[tag_field] = _respell_word(tags, value[tag_field], (*path, tag_field), note)
    record = select_record(schema, value)
    if not isinstance(record, inspect.StructType):
        return value
    fields = {field.encode_name: field.type for field in record.fields}
    respelled = {}
    for key, item in value.items():
        known = _KEYS.get(key.lower(), key.lower())
        if key not in fields and known in fields and known not in value:
            note(f"{format_path((*path, key))} is read as {known}")
        else:
            known = key
        respelled[known] = _respell(fields[known], item, (*path, known), note) if known in fields else item
    return respelled


def _respell_word(words: list[str], value: Any, path: KeyPath, note: Note) -> Any:
    if not isinstance(value, str) or value in words:
        return value
    word = _WORDS.get(value.lower(), value.lower())
    if word not in words:
        return value
    note(f"{format_path(path)} {value!r} is read as {word!r}")
    return word


def _respell_head(head: dict[str, Any], note: Note) -> dict[str, Any]:
    """Writes labels that are whole numbers as text, as the table has them, and derives a name for outputs."""
    head = dict(head)
    if isinstance(head.get("labels"), list):
        head["labels"] = [str(label) if type(label) is int else label for label in head["labels"]]
    name = head.get("name")
    if isinstance(name, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9 _.-]*", name):
        derived = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") if re.search(r"[^a-z0-9_]", name) else name
        if derived != name:
            head["name"] = derived
            head.setdefault("column", name)
            note(f"head {name!r} is named {derived}; its column is {head['column']!r}")
    return head
