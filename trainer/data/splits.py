"""Assigns rows to splits: by a column, or seeded; never a group to two."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from probrt.runtime.errors import DataError
from probrt.trainer.config.settings import DataSettings
from probrt.trainer.data.examples import SPLITS
from probrt.trainer.data.table import Row, Table

FaultReport = Callable[[Row, str], None]


def assign_splits(table: Table, settings: DataSettings, *, seed: int, identity: str, report: FaultReport) -> list[str]:
    """Returns each row's split.

    identity: the column that identifies rows; rows with the same value stay together, as a group does.
    report: takes every row whose split is none of SPLITS, or whose group is in two. Raises DataError for a column
    that is not there, or for settings that leave nothing to train on.
    """
    if settings.group:
        table.check_columns([settings.group])
    column = settings.split or ("split" if "split" in table.columns else "")
    if not column:
        return _assign_at_random(table, settings, seed, settings.group or identity)
    table.check_columns([column])
    splits = [row.cells[column].strip() for row in table.rows]
    first_of_group: dict[str, tuple[str, Row]] = {}
    for row, split in zip(table.rows, splits, strict=True):
        if split not in SPLITS:
            report(row, f"{column} is {split!r}, none of {', '.join(SPLITS)}")
            continue
        group_column = settings.group or identity
        group = row.cells.get(group_column, "")
        first, first_row = first_of_group.setdefault(group, (split, row)) if group else (split, row)
        if first != split:
            report(row, f"{group_column} {group!r} is in {split}, and in {first} in {first_row}")
    return splits


def _assign_at_random(table: Table, settings: DataSettings, seed: int, group_column: str) -> list[str]:
    """Takes groups in the order of a keyed hash, so that a group's place does not depend on the other rows."""
    sizes: dict[str, int] = {}
    for row in table.rows:
        group = row.cells.get(group_column, "") or str(row)
        sizes[group] = sizes.get(group, 0) + 1
    if settings.validation + settings.test >= 1:
        raise DataError(f"{table.where}: data.validation and data.test leave nothing to train on")
    order = sorted(sizes, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest())
    split_of: dict[str, str] = {}
    assigned = {"validation": 0, "test": 0}
    total = len(table.rows)
    for group in order:
        # The first groups go to test, then validation, as long as they bring the split nearer to its share.
        for split, share in (("test", settings.test), ("validation", settings.validation)):
            wanted = max(1.0, share * total) if share else 0.0
            if assigned[split] + sizes[group] / 2 <= wanted or (share and not assigned[split]):
                assigned[split] += sizes[group]
                split_of[group] = split
                break
        else:
            split_of[group] = "train"
    return [split_of[row.cells.get(group_column, "") or str(row)] for row in table.rows]
