"""Writes a config as TOML with every key: its value or its default, and a comment that says what it means."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from probrt.trainer.config.explain import literals, records_of, select_record

_WIDTH = 100


def write_template(schema: type, settings: dict[str, Any]) -> str:
    """Returns settings of a schema as TOML, with all defaults; a required key without a value is a comment."""
    return "\n".join(_write_record(inspect.type_info(schema), settings, "")).strip() + "\n"


def _write_record(schema: inspect.Type, settings: dict[str, Any], header: str) -> Iterator[str]:
    """Yields the lines of a record: plain values first, then its tables, as TOML requires."""
    record = select_record(schema, settings)
    if not isinstance(record, inspect.StructType):
        return
    meanings = read_meanings(record)
    if record.tag_field:
        tags = [str(member.tag) for member in records_of(schema)]
        yield from _write_value(record.tag_field, settings.get(record.tag_field), f"one of: {', '.join(tags)}", True)
    tables = []
    for field in record.fields:
        key = field.encode_name
        value = settings.get(key, default_of(field))
        if _is_table(field.type, value, field.required):
            tables.append((field, value))
            continue
        words = literals(field.type)
        choices = f"one of: {', '.join(words)}" if words else ""
        yield from _write_value(key, value, " ".join(filter(None, [choices, meanings.get(key, "")])), field.required)
    for field, value in tables:
        key = f"{header}{field.encode_name}"
        yield ""
        yield from _comment(meanings.get(field.encode_name, ""))
        plain = select_record(field.type, value)
        if isinstance(plain, inspect.ListType):
            for item in value or [{}]:
                yield f"[[{key}]]"
                yield from _write_record(plain.item_type, item, f"{key}.")
                yield ""
        else:
            yield f"[{key}]"
            yield from _write_record(field.type, value or {}, f"{key}.")


def _is_table(schema: inspect.Type, value: Any, required: bool) -> bool:
    plain = select_record(schema, value)
    item = select_record(plain.item_type, {}) if isinstance(plain, inspect.ListType) else plain
    return isinstance(item, inspect.StructType) and (value is not None or required)


def _write_value(key: str, value: Any, meaning: str, required: bool) -> Iterator[str]:
    import tomli_w

    if value is None:
        yield from _comment(f"{key} = …  {'(required)' if required else '(unset)'} {meaning}".rstrip())
    else:
        yield from _comment(meaning)
        yield tomli_w.dumps({key: _drop_null(value)}).strip()


def _drop_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _drop_null(item) for key, item in value.items() if item is not None}
    return [_drop_null(item) for item in value] if isinstance(value, list | tuple) else value


def _comment(text: str) -> Iterator[str]:
    for line in textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False):
        yield f"# {line}"


def default_of(field: inspect.Field) -> Any:
    """Returns the default of a field as plain values; None if it has none."""
    if field.default_factory is not msgspec.NODEFAULT:
        return msgspec.to_builtins(field.default_factory())
    return None if field.default is msgspec.NODEFAULT else msgspec.to_builtins(field.default)


def read_meanings(record: inspect.StructType) -> dict[str, str]:
    """Returns what the docstrings of a record and its bases say about each field, as `name, name: text`."""
    names = {field.encode_name for field in record.fields}
    meanings: dict[str, str] = {}
    for cls in record.cls.__mro__[: record.cls.__mro__.index(msgspec.Struct)]:
        for paragraph in re.split(r"\n\s*\n", cls.__doc__ or ""):
            text = " ".join(paragraph.split())
            places = [
                match
                for match in re.finditer(r"(?:^|(?<=[.;)] ))(\w+(?:, \w+)*): ", text)
                if set(match[1].split(", ")) <= names
            ]
            ends = [match.start() for match in places[1:]] + [len(text)] * bool(places)
            for match, end in zip(places, ends, strict=True):
                for name in match[1].split(", "):
                    meanings.setdefault(name, text[match.end() : end].strip(" ;"))
    return meanings
