"""Checkpoints of a fit: everything that the next step depends on, in one file that is whole or not there.

model/checkpoints/00001234.npz: arrays, and `state`, JSON. Two are kept. A zip archive holds a checksum of each of
its members and its index at the end, so a truncated or altered file is known as such when it is read.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from probrt.runtime.errors import DataError, StorageError
from probrt.runtime.files import open_atomic

_KEPT = 2


class State(Struct, kw_only=True):
    """Where a fit stands, but for its arrays.

    step: finished steps. run: digest of config and data; another run's checkpoint is not taken up.
    sums: loss and KL over the epoch's steps so far. best: the highest validation ELBO; waited: epochs since.
    averaged: epochs in the average of weights. seconds: spent fitting so far.
    """

    run: str
    step: int = 0
    sums: tuple[float, float] = (0.0, 0.0)
    best: float | None = None
    waited: int = 0
    averaged: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints in a folder; `say` takes lines for a person."""

    folder: Path
    say: Callable[[str], None] = print

    def save(self, state: State, arrays: Mapping[str, np.ndarray]) -> None:
        """Adds a checkpoint and drops all but the newest two; StorageError leaves those that are there alone."""
        path = self.folder / f"{state.step:08d}.npz"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open_atomic(path) as file:
                np.savez(file, state=np.frombuffer(msgspec.json.encode(state), np.uint8), **arrays)
        except OSError as error:
            raise StorageError(
                f"{path}: {error.strerror or error}; {self._last()}; make room and go on with --resume"
            ) from None
        for old in self.paths()[_KEPT:]:
            old.unlink(missing_ok=True)

    def newest(self, run: str) -> tuple[State, dict[str, np.ndarray]] | None:
        """The newest checkpoint that is whole; None if there is none at all.

        Says which damaged ones it passes over. DataError if all are damaged, or if they are of another config
        or other data.
        """
        paths = self.paths()
        for path in paths:
            try:
                state, arrays = _read(path.read_bytes())
            except (OSError, ValueError, KeyError, zipfile.BadZipFile, msgspec.MsgspecError, EOFError) as error:
                self.say(f"{path}: damaged ({' '.join(str(error).split())[:100]}); taking the one before")
                continue
            if state.run != run:
                raise DataError(
                    f"{path}: is of another config or other data; train anew with --overwrite, or with another --out"
                )
            return state, arrays
        if paths:
            raise DataError(f"{self.folder}: every checkpoint is damaged; train anew with --overwrite")
        return None

    def paths(self) -> list[Path]:
        """The checkpoints' files, newest first."""
        return sorted(self.folder.glob("*.npz"), reverse=True)

    def clear(self) -> None:
        """Removes all checkpoints."""
        for path in [*self.folder.glob("*.npz"), *self.folder.glob("*.part")]:
            path.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _last(self) -> str:
        paths = self.paths()
        return f"the checkpoint of step {int(paths[0].stem)} is kept" if paths else "there is no checkpoint yet"


def _read(data: bytes) -> tuple[State, dict[str, np.ndarray]]:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return msgspec.json.decode(arrays.pop("state").tobytes(), type=State), arrays
