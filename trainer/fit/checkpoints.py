"""Checkpoints of a fit: everything that the next step depends on, in one file that is either whole or absent.

model/checkpoints/00001234.npz holds arrays, named by group and number, and `state`, which is JSON. The newest two stay.
A zip archive has a checksum for each member and its index at the end, so reading detects a truncated or altered file.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from probrt.runtime.errors import DataError, StorageError
from probrt.runtime.files import open_atomic

_KEPT = 2

ArrayGroups = Mapping[str, Sequence[np.ndarray]]


class FitState(Struct, kw_only=True):
    """Where a fit stands, apart from its arrays.

    origin: config and data of the fit; a checkpoint of another origin is refused. step: number of finished steps.
    sums: sums of loss and KL over the finished steps of the current epoch. best: highest validation ELBO so far.
    waited: epochs since `best`. averaged: epochs in the average of the weights. seconds: time spent on fitting so far.
    start: loss of the first step, with the whole KL.
    """

    origin: dict[str, Any] = {}
    step: int = 0
    sums: tuple[float, float] = (0.0, 0.0)
    best: float | None = None
    waited: int = 0
    averaged: int = 0
    seconds: float = 0.0
    start: float | None = None


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints in a folder. Calls `report` with lines for the user."""

    folder: Path
    report: Callable[[str], None] = print

    def save(self, state: FitState, arrays: ArrayGroups) -> None:
        """Writes a checkpoint and removes all but the newest two.

        Raises StorageError if the disk is full or read-only; the older checkpoints then stay as they are.
        """
        path = self.folder / f"{state.step:08d}.npz"
        members = {
            f"{group}_{number:05d}": array for group, values in arrays.items() for number, array in enumerate(values)
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open_atomic(path) as file:
                encoded = np.frombuffer(msgspec.json.encode(state), np.uint8)
                np.savez(file, allow_pickle=False, state=encoded, **members)
        except OSError as error:
            newest = self.newest_step()
            remaining = "there is no checkpoint yet" if newest is None else f"the checkpoint of step {newest} is kept"
            raise StorageError(
                f"{path}: {error.strerror or error}; {remaining}; make room and go on with --resume"
            ) from None
        for old in self.paths()[_KEPT:]:
            old.unlink(missing_ok=True)

    def load_newest(self, origin: Mapping[str, Any]) -> tuple[FitState, dict[str, list[np.ndarray]]] | None:
        """Returns the state and arrays of the newest undamaged checkpoint, or None if there is no checkpoint.

        Reports each damaged checkpoint that it skips. Raises DataError if all of them are damaged, or if the
        checkpoint belongs to another config or other data, with what differs.
        """
        paths = self.paths()
        for path in paths:
            try:
                state, arrays = _read(path.read_bytes())
            except (OSError, ValueError, KeyError, zipfile.BadZipFile, msgspec.MsgspecError, EOFError) as error:
                self.report(f"{path}: damaged ({' '.join(str(error).split())[:100]}); using the checkpoint before it")
                continue
            if differences := list(_differences(state.origin, origin, "")):
                raise DataError(
                    f"{path}: belongs to another fit: {'; '.join(differences)}; start again with --overwrite, or "
                    "choose another --out"
                )
            return state, arrays
        if paths:
            raise DataError(f"{self.folder}: every checkpoint is damaged; start again with --overwrite")
        return None

    def paths(self) -> list[Path]:
        """Returns the checkpoint files, newest first."""
        return sorted(self.folder.glob("*.npz"), reverse=True)

    def newest_step(self) -> int | None:
        """Returns the step of the newest checkpoint, or None if there is no checkpoint."""
        paths = self.paths()
        return int(paths[0].stem) if paths else None

    def clear(self) -> None:
        """Removes all checkpoints."""
        for path in [*self.folder.glob("*.npz"), *self.folder.glob("*.part")]:
            path.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


def _differences(before: Any, now: Any, path: str) -> Iterator[str]:
    """Yields what differs between two records of plain values, with its path."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            yield from _differences(before.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif before != now:
        described = ["absent" if value is None else json.dumps(value) for value in (before, now)]
        yield "the data differ" if path == "data" else f"{path} was {described[0]} and is {described[1]}"


def _read(data: bytes) -> tuple[FitState, dict[str, list[np.ndarray]]]:
    groups: dict[str, list[np.ndarray]] = {}
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        state = msgspec.json.decode(archive["state"].tobytes(), type=FitState)
        for name in sorted(archive.files):
            group, _, number = name.rpartition("_")
            if number.isdigit():
                groups.setdefault(group, []).append(archive[name])
    return state, groups
