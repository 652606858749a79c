"""Collects the faults of a table's rows, and says each fault once with the rows that have it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from probrt.runtime.errors import DataError
from probrt.trainer.data.table_files import Row

LISTED = 20
_ROWS = 4


class RowFault(NamedTuple):
    """A fault of a row. subject: what in the row is faulty, the file for example; may be empty."""

    row: Row
    subject: str
    reason: str


class FaultyData(DataError):
    """Data with faults; `lines` has a line for each reason, with the rows that have it, in the order of the rows."""

    def __init__(self, where: Path, faults: Sequence[RowFault]) -> None:
        self.lines = tuple(_describe(faults))
        more = f"; and {len(self.lines) - LISTED} more reasons" if len(self.lines) > LISTED else ""
        plural = "" if len(faults) == 1 else "s"
        super().__init__(f"{where}: {len(faults)} fault{plural}: {'; '.join(self.lines[:LISTED])}{more}")


class FaultList:
    """Collects faults from several threads."""

    def __init__(self) -> None:
        self._faults: list[RowFault] = []
        self._lock = threading.Lock()

    def add(self, row: Row, subject: str, reason: str) -> None:
        """Adds a fault of a row."""
        with self._lock:
            self._faults.append(RowFault(row, subject, reason))

    def __bool__(self) -> bool:
        return bool(self._faults)

    def check(self, where: Path) -> None:
        """Raises FaultyData if there is any fault."""
        if self._faults:
            raise FaultyData(where, sorted(self._faults, key=lambda fault: fault.row.number))


def _describe(faults: Sequence[RowFault]) -> list[str]:
    by_reason: dict[str, list[RowFault]] = {}
    for fault in faults:
        by_reason.setdefault(fault.reason, []).append(fault)
    lines = []
    for reason, (first, *others) in by_reason.items():
        subject = f"{first.subject}: " if first.subject else ""
        lines.append(f"{first.row}: {subject}{reason}{_describe_rows([fault.row.number for fault in others])}")
    return lines


def _describe_rows(row_numbers: Sequence[int]) -> str:
    if not row_numbers:
        return ""
    shown = ", ".join(map(str, row_numbers[:_ROWS]))
    more = f" and {len(row_numbers) - _ROWS} more" if len(row_numbers) > _ROWS else ""
    return f" (and row{'s' if len(row_numbers) > 1 else ''} {shown}{more})"
