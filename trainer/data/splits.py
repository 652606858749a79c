"""Which row is in which split: by a column, or seeded; never a group in two."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from probrt.runtime.errors import DataError
from probrt.trainer.config.settings import DataSettings
from probrt.trainer.data.examples import SPLITS
from probrt.trainer.data.table import Row, Table

Report = Callable[[Row, str], None]


def splits(table: Table, settings: DataSettings, seed: int, identity: str, fault: Report) -> list[str]:
    """Each row's split.

    identity: the column that tells rows apart, whose equal values stay together as a group does.
    fault: takes every row whose split is none of SPLITS, or whose group is in two. DataError for a column
    that is not there.
    """
    if settings.group:
        table.check_columns([settings.group])
    column = settings.split or ("split" if "split" in table.columns else "")
    if not column:
        return _seeded(table, settings, seed, settings.group or identity)
    table.check_columns([column])
    found = [row.cells[column].strip() for row in table.rows]
    seen: dict[str, tuple[str, Row]] = {}
    for row, split in zip(table.rows, found, strict=True):
        if split not in SPLITS:
            fault(row, f"{column} is {split!r}, none of {', '.join(SPLITS)}")
            continue
        together = settings.group or identity
        group = row.cells.get(together, "")
        first, where = seen.setdefault(group, (split, row)) if group else (split, row)
        if first != split:
            fault(row, f"{together} {group!r} is in {split}, and in {first} in {where}")
    return found


def _seeded(table: Table, settings: DataSettings, seed: int, together: str) -> list[str]:
    """Groups in the order of a keyed hash, so that a group's place does not depend on the other rows."""
    groups: dict[str, int] = {}
    for row in table.rows:
        name = row.cells.get(together, "") or str(row)
        groups[name] = groups.get(name, 0) + 1
    if settings.validation + settings.test >= 1:
        raise DataError(f"{table.where}: data.validation and data.test leave nothing to train on")
    order = sorted(groups, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    chosen: dict[str, str] = {}
    taken = {"validation": 0, "test": 0}
    total = len(table.rows)
    for name in order:
        # The first groups go to test, then validation, as long as they bring the split nearer to its part.
        for split, part in (("test", settings.test), ("validation", settings.validation)):
            wanted = max(1.0, part * total) if part else 0.0
            if taken[split] + groups[name] / 2 <= wanted or (part and not taken[split]):
                taken[split] += groups[name]
                chosen[name] = split
                break
        else:
            chosen[name] = "train"
    return [chosen[row.cells.get(together, "") or str(row)] for row in table.rows]
