"""Assigns rows to splits: by a column, or seeded; never a group to two, and each class to all if asked for."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from probrt.runtime.errors import DataError
from probrt.trainer.config.settings import DataSettings
from probrt.trainer.data.examples import SPLIT_WORDS, SPLITS
from probrt.trainer.data.faults import FaultList
from probrt.trainer.data.table import Table
from probrt.trainer.data.table_files import Row


def assign_splits(
    table: Table, settings: DataSettings, *, seed: int, identity: str, faults: FaultList
) -> tuple[list[str], list[str]]:
    """Returns each row's split, and notes about them.

    identity: the column that identifies rows; rows with the same value stay together, as a group does.
    faults: takes every row whose split is none of SPLIT_WORDS, or whose group is in two. Where the table names training
    rows and no validation rows, a seeded part of the training rows validates.
    Raises DataError for a column that is not there, or for settings that leave nothing to train on.
    """
    table.check_columns([column for column in (settings.group, settings.stratify) if column])
    group_column = settings.group or identity
    column = settings.split or ("split" if "split" in table.columns else "")
    if not column:
        if settings.validation + settings.test >= 1:
            raise DataError(f"{table.where}: data.validation and data.test leave nothing to train on")
        shares = {"test": settings.test, "validation": settings.validation}
        if settings.stratify:
            return _assign_by_class(table.rows, shares, seed, group_column, settings.stratify), []
        return _assign_at_random(table.rows, shares, seed, group_column), []
    table.check_columns([column])
    splits = []
    first_of_group: dict[str, tuple[str, Row]] = {}
    for row in table.rows:
        cell = row.cells[column].strip()
        split = SPLIT_WORDS.get(cell.lower(), "")
        splits.append(split)
        if not split:
            faults.add(row, "", f"{column} is {cell!r}, none of {', '.join(SPLITS)}")
            continue
        group = row.cells.get(group_column, "")
        first, first_row = first_of_group.setdefault(group, (split, row)) if group else (split, row)
        if first != split:
            faults.add(row, "", f"{group_column} {group!r} is in {split}, and in {first} in {first_row}")
    places = [place for place, split in enumerate(splits) if split == "train"]
    if faults or "validation" in splits or len(places) < 2:
        return splits, []
    chosen = _assign_at_random(
        [table.rows[place] for place in places], {"validation": settings.validation}, seed, group_column
    )
    for place, split in zip(places, chosen, strict=True):
        splits[place] = split
    count = chosen.count("validation")
    return splits, [f"no row is in the validation split: {count} of the training rows are taken (data.validation)"]


def _assign_at_random(rows: Sequence[Row], shares: Mapping[str, float], seed: int, group_column: str) -> list[str]:
    """Takes groups in the order of a keyed hash, so that a group's place does not depend on the other rows."""
    groups = [_group(row, group_column) for row in rows]
    sizes = Counter(groups)
    order = _shuffle(sizes, seed)
    split_of: dict[str, str] = {}
    assigned = dict.fromkeys(shares, 0)
    for group in order:
        # The first groups go to test, then validation, as long as they bring the split nearer to its share.
        for split, share in shares.items():
            wanted = max(1.0, share * len(rows)) if share else 0.0
            if assigned[split] + sizes[group] / 2 <= wanted or (share and not assigned[split]):
                assigned[split] += sizes[group]
                split_of[group] = split
                break
        else:
            split_of[group] = "train"
    return [split_of[group] for group in groups]


def _assign_by_class(
    rows: Sequence[Row], shares: Mapping[str, float], seed: int, group_column: str, class_column: str
) -> list[str]:
    """Assigns the groups of each class on their own, the rarest class first; a group belongs to the rarest of its rows.

    Of a class with one group it trains; with two, one validates; with three or more each split has one at least.
    """
    classes = [row.cells.get(class_column, "").strip() for row in rows]
    counts = Counter(classes)
    groups = [_group(row, group_column) for row in rows]
    sizes = Counter(groups)
    class_of: dict[str, str] = {}
    for group, name in zip(groups, classes, strict=True):
        class_of[group] = min(class_of.get(group, name), name, key=lambda label: (counts[label], label))
    split_of: dict[str, str] = {}
    for name in sorted(counts, key=lambda label: (counts[label], label)):
        order = _shuffle((group for group, own in class_of.items() if own == name), seed)
        total = sum(sizes[group] for group in order)
        wanted = [(split, share * total) for split, share in shares.items() if share]
        if len(order) <= len(wanted):  # too few for all: train has the first claim, then validation
            wanted = [(split, rows_wanted) for split, rows_wanted in wanted if split != "test"] if order[1:] else []
        place = 0
        for index, (split, rows_wanted) in enumerate(wanted):
            taken, end = 0, len(order) - len(wanted) + index  # a group stays for each split that follows and for train
            while place < end and (not taken or taken + sizes[order[place]] / 2 <= rows_wanted):
                split_of[order[place]] = split
                taken, place = taken + sizes[order[place]], place + 1
        split_of |= dict.fromkeys(order[place:], "train")
    return [split_of[group] for group in groups]


def _group(row: Row, column: str) -> str:
    return row.cells.get(column, "") or str(row)


def _shuffle(groups: Iterable[str], seed: int) -> list[str]:
    return sorted(groups, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest())
