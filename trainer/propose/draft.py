"""Drafts a whole training config for a folder, each setting with its reason."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from probrt.trainer.backbones.base import choose_widths
from probrt.trainer.data.table import FILE
from probrt.trainer.propose.classes import RareClasses, find_rare_classes
from probrt.trainer.propose.columns import GROUPS, HeadChoice, choose_heads
from probrt.trainer.propose.copies import find_copies, find_series, join_by, number_sets
from probrt.trainer.propose.pictures import InputChoice, choose_input
from probrt.trainer.propose.source import CLASS_COLUMN, Source, find_source

# The column that init adds for images that are copies of others.
COPIES = "copies"
# As many steps as let the recipe of a silent config settle on small data.
_STEPS, _EPOCHS = 3000, (20, 150)


@dataclass(frozen=True)
class Setting:
    """A key of the config with its value and the reason for it; section: its table, "heads.0" for the first head."""

    section: str
    key: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Draft:
    """A config in the making. train_count: about how many images train."""

    source: Source
    settings: list[Setting]
    notes: list[str]
    train_count: int

    def with_value(self, section: str, key: str, value: Any, reason: str) -> Draft:
        """Returns the draft with another value for a key."""
        setting = Setting(section, key, value, reason)
        kept = [old for old in self.settings if (old.section, old.key) != (section, key)]
        place = next((i for i, old in enumerate(kept) if old.section == section), len(kept))
        return replace(self, settings=[*kept[:place], setting, *kept[place:]])

    def value(self, section: str, key: str) -> Any:
        """Returns the value of a key; None if the draft does not set it."""
        return next((item.value for item in self.settings if (item.section, item.key) == (section, key)), None)


def draft_config(folder: Path, out: Path) -> Draft:
    """Drafts the config of a folder that will be written to `out`; a table or masks it needs go beside `out`.

    Raises DataError if the folder holds nothing to train on.
    """
    source = find_source(folder, out.with_name(f"{out.stem}-masks"))
    split = "split" if any(source.cells("split")) else ""
    group = next((column for column in source.columns if column.lower() in GROUPS), "")
    if source.labels:
        reason = f"{len(source.labels)} folders name the classes"
        labels = list(source.labels)
        heads = [HeadChoice({"name": CLASS_COLUMN, "likelihood": "categorical", "labels": labels}, reason)]
        notes: list[str] = []
    else:
        heads, notes = choose_heads(source, split, group)
    chosen = choose_input(folder, source.cells(FILE))
    if not split and chosen.is_picture:
        source, group, reason = _keep_copies_together(source, group)
        notes = [*notes, *([reason] if reason else [])]
    rare = find_rare_classes(source, heads)
    if rare and rare.note:
        notes = [*notes, rare.note]
    in_train = source.cells("split").count("train") if split else 0
    train_count = in_train or max(1, round((1 - 2 * _choose_share(source)) * len(source.rows)))
    settings = [
        Setting("", "name", _name_model(folder), "of the model and its bundles, after the folder"),
        *_data_settings(source, out, split, group, rare),
        *_augmentation(chosen, heads, train_count),
        *(
            Setting("input", key, value, chosen.reasons.get(key, "") or "as the files are")
            for key, value in chosen.settings.items()
        ),
        *_backbone(chosen, heads, train_count),
        *_heads(heads),
        *_fit(train_count),
    ]
    return Draft(source, settings, [*source.notes, *notes], train_count)


def _choose_share(source: Source) -> float:
    """Returns the share of the rows that validate, and of those that test, in a folder without splits."""
    return 0.15 if len(source.rows) < 2000 else 0.1


def _name_model(folder: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name).strip("-._") or "model"


def _keep_copies_together(source: Source, group: str) -> tuple[Source, str, str]:
    """Returns the source with a column that joins copies, the column to group by, and a note if there are copies.

    The column replaces that of the groups, and joins them too.
    """
    first = find_copies(source.root, source.cells(FILE))
    copies = len(first) - len(set(first))
    if not copies:
        return source, group, ""
    if series := find_series(first):
        note = (
            f"{series} of {len(first)} images are nearly the same picture, too many to keep in one split; if they are "
            "a series, name its column in data.group"
        )
        return source, group, note
    cells = number_sets(join_by(first, source.cells(group)) if group else first)
    rows = [{**row, COPIES: cell} for row, cell in zip(source.rows, cells, strict=True)]
    joined = f"; rows of the same {group} too" if group else ""
    note = f"{copies} images are copies of others, or nearly so: column {COPIES} keeps them in one split{joined}"
    return replace(source, rows=rows, table="", written=True), COPIES, note


def _data_settings(source: Source, out: Path, split: str, group: str, rare: RareClasses | None) -> list[Setting]:
    folder = os.path.relpath(source.root.resolve(), out.resolve().parent).replace(os.sep, "/")
    settings = [Setting("data", "folder", folder, source.kind)]
    if source.table:
        settings.append(Setting("data", "table", source.table, "the one table in the folder"))
    elif source.written:
        table = os.path.relpath(out.resolve().with_suffix(".csv"), source.root.resolve()).replace(os.sep, "/")
        reason = f"the column {COPIES} is new" if COPIES in source.columns else "the folder has no table"
        settings.append(Setting("data", "table", table, f"written beside the config: {reason}"))
    if group:
        reason = "rows of the same value are never in two splits"
        settings.append(Setting("data", "group", group, f"copies: {reason}" if group == COPIES else reason))
    if split:
        if not source.labels:
            settings.append(Setting("data", "split", split, "the folder's own splits"))
    else:
        share = _choose_share(source)
        settings.append(Setting("data", "validation", share, "calibrates the model; more of few images"))
        settings.append(Setting("data", "test", share, "measures the model, for probrt evaluate"))
        if rare:
            settings.append(Setting("data", "stratify", rare.column, f"every class in every split: {rare}"))
    return settings


def _augmentation(chosen: InputChoice, heads: Sequence[HeadChoice], train_count: int) -> list[Setting]:
    if len(chosen.sides) != 2 or chosen.settings["colour"] == "none":
        return []
    settings = []
    shift = max(1, min(chosen.sides) // 16)
    settings.append(Setting("data", "shift", shift, "a sixteenth of the shorter side"))
    labels = [label.lower() for head in heads for label in head.settings.get("labels", [])]
    symbols = any(len(label) == 1 or re.search(r"left|right", label) for label in labels)
    poses = any(head.likelihood in ("normal", "log_normal", "student_t", "beta") for head in heads)
    if (chosen.coloured or all(head.per_position for head in heads)) and not symbols and not poses:
        settings.append(Setting("data", "flip", ["horizontal"], "no label is a sign, a side or a measure"))
    if chosen.coloured and train_count < 50_000:
        size = 0.1 if train_count < 5000 else 0.05
        reason = f"{train_count} colour pictures train: more change for fewer"
        settings += [Setting("data", key, size, reason) for key in ("brightness", "contrast")]
    return settings


def _backbone(chosen: InputChoice, heads: Sequence[HeadChoice], train_count: int) -> list[Setting]:
    widest = 64 if train_count < 1000 else 128 if train_count < 5000 else 256
    sides = chosen.sides or [1]
    if any(head.per_position for head in heads):
        levels = 1
        while levels < 4 and min(sides) >> levels >= 8:
            levels += 1
        widths = [min(widest, 16 * 2**level) for level in range(levels)]
        settings = [
            Setting("backbone", "name", "unet", "masks need a map of the image's size"),
            Setting("backbone", "widths", widths, f"{levels} levels down to maps of 8 or more; {train_count} images"),
            Setting("backbone", "normalisation", "batch", "steps of 3e-3 need it"),
        ]
    elif not chosen.sides:
        return [Setting("backbone", "name", "dense", "feature vectors")]
    else:
        widths = [min(widest, width) for width in choose_widths(sides)]
        settings = [
            Setting("backbone", "name", "conv", "one answer per image"),
            Setting("backbone", "widths", widths, f"stages down to maps of 8; {train_count} images train"),
        ]
    if any(head.likelihood == "box" for head in heads):
        settings.append(Setting("backbone", "coordinates", True, "a box is a place, which pooling discards"))
    return settings


def _heads(heads: Sequence[HeadChoice]) -> list[Setting]:
    mixed = any(head.per_position for head in heads)
    settings = []
    for index, head in enumerate(heads):
        section = f"heads.{index}"
        for key, value in head.settings.items():
            reason = head.reason if key == "likelihood" else ""
            settings.append(Setting(section, key, value, reason))
        if mixed and not head.per_position:
            reason = "" if settings[-1].section != "heads.0" else "reads the whole image, in layers beside the masks'"
            settings.append(Setting(section, "stage", "bottom", reason))
            settings.append(Setting(section, "own", {"widths": [64]}, ""))
    return settings


def _fit(train_count: int) -> list[Setting]:
    batch = 64 if train_count >= 1000 else 32 if train_count >= 300 else 16
    steps_per_epoch = -(-train_count // batch)
    epochs = min(max(_EPOCHS[0], -(-_STEPS // steps_per_epoch)), _EPOCHS[1])
    return [
        Setting("fit", "epochs", epochs, f"about {epochs * steps_per_epoch} steps; --minutes chooses by time"),
        Setting("fit", "batch", batch, f"{train_count} images train: smaller batches for fewer"),
    ]
