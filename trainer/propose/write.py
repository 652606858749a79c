"""Writes a draft as a commented TOML config, and shows its choices as a table."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import tomli_w
from rich.console import Console
from rich.table import Table
from rich.text import Text

from probrt.runtime.files import write_atomic
from probrt.trainer.propose.draft import Draft

_WIDTH = 100


def format_config(draft: Draft) -> str:
    """Returns the draft as TOML, with the reason for each setting as a comment before it."""
    return "\n".join(_lines(draft)) + "\n"


def _lines(draft: Draft) -> Iterator[str]:
    yield f"# Proposed by probrt init for {draft.source.kind}. Every key: probrt train CONFIG --print-config"
    for note in draft.notes:
        yield from textwrap.wrap(f"note: {note}", _WIDTH, initial_indent="# ", subsequent_indent="# ")
    order = list(dict.fromkeys(setting.section for setting in draft.settings))
    for section, group in groupby(sorted(draft.settings, key=lambda item: order.index(item.section)), _section):
        if section:
            yield ""
            yield "[[heads]]" if section.startswith("heads.") else f"[{section}]"
        reason = ""
        for setting in group:
            if setting.reason and setting.reason != reason:
                yield from textwrap.wrap(setting.reason, _WIDTH, initial_indent="# ", subsequent_indent="# ")
            reason = setting.reason
            yield _assign(setting.key, setting.value)


def _section(setting: object) -> str:
    return str(getattr(setting, "section", ""))


def _assign(key: str, value: object) -> str:
    if isinstance(value, dict):  # inline, for the tables of a head stand under its other keys
        return f"{key} = {{ {', '.join(_assign(name, item) for name, item in value.items())} }}"
    if isinstance(value, list):
        return f"{key} = [{', '.join(_assign('v', item).removeprefix('v = ') for item in value)}]"
    return tomli_w.dumps({key: value}).strip()


def write_table(draft: Draft, out: Path) -> None:
    """Writes the rows that no file of the folder lists, as a CSV beside the config."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, draft.source.columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(draft.source.rows)
    write_atomic(out.with_suffix(".csv"), stream.getvalue().encode("utf-8"))


def show_draft(draft: Draft, console: Console) -> None:
    """Prints each choice with its reason as a table, and the notes after it."""
    table = Table(title=draft.source.kind, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for title, ratio in (("setting", 3), ("value", 3), ("why", 6)):
        table.add_column(title, ratio=ratio, overflow="fold")
    names = {item.section: str(item.value) for item in draft.settings if item.key == "name" and "." in item.section}
    for setting in draft.settings:
        if setting.reason:
            section = names.get(setting.section, setting.section)
            value = setting.value if isinstance(setting.value, str) else _assign("v", setting.value)[4:]
            table.add_row(Text(f"{section}.{setting.key}".lstrip(".")), Text(value), Text(setting.reason))
    console.print(table)
    for note in draft.notes:
        console.print(f"note: {note}", soft_wrap=True, markup=False)
