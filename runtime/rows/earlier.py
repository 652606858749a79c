"""The rows of an earlier run: read with what the run was asked for, their bundle and images checked."""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import NAME
from probrt.runtime.errors import InputError, UsageError
from probrt.runtime.predict.predictor import cores
from probrt.runtime.rows.numbers import Row
from probrt.runtime.rows.readers import read_rows
from probrt.runtime.rows.resume import compute_digest
from probrt.runtime.rows.run_record import read_record, record_path


@dataclass(frozen=True)
class EarlierRows:
    """The rows of a file. settings: those of the run that wrote it; None if its record is missing or damaged."""

    path: Path
    rows: Sequence[Row]
    settings: Mapping[str, Any] | None

    @property
    def warning(self) -> str:
        """What a missing record means for the reader; empty if it is there."""
        if self.settings is not None:
            return ""
        return f"{record_path(self.path).name} is missing or damaged: the bundle's seed and float32 files are taken"


def read_earlier_rows(path: Path) -> EarlierRows:
    """Reads a file of rows, or a folder of `predict --ray`.

    Raises InputError for a file without rows or with something else, UsageError for one that does not exist.
    """
    rows = list(read_rows(path))
    if not rows:
        raise InputError(f"{path}: holds no rows")
    record = read_record(record_path(path))
    return EarlierRows(path, rows, None if record is None else record.settings)


def open_earlier_bundle(earlier: EarlierRows, folder: str) -> Bundle:
    """Opens the bundle of the rows: that in `folder`, or the one in artifacts/ that they name if it is empty.

    Raises UsageError if it is not there, or if its manifest is not the one that wrote the rows.
    """
    bundle = Bundle.open(folder or _find_bundle(earlier))
    if earlier.settings is not None:
        digest = hashlib.sha256((bundle.path / NAME).read_bytes()).hexdigest()
        written = earlier.settings.get("manifest")
        if written != digest:
            raise UsageError(
                f"{bundle.path}: is another bundle than the one that wrote {earlier.path}: its manifest has the digest "
                f"{digest[:12]}, that of the rows {str(written)[:12]}; restore it, or use --bundle"
            )
    return bundle


def _find_bundle(earlier: EarlierRows) -> str:
    """Returns the folder in artifacts/ of the bundle that the rows name."""
    labels = sorted({row["bundle"] for row in earlier.rows if isinstance(row.get("bundle"), str)})
    if len(labels) != 1:
        raise UsageError(f"{earlier.path}: its rows name {', '.join(labels) or 'no bundle'}; give those of one bundle")
    folder = Path("artifacts", labels[0])
    if ".." in folder.parts or not folder.is_dir():
        raise UsageError(f"{folder}: no such bundle; name that of the rows with --bundle")
    return str(folder)


def check_labels(rows: Sequence[Row], bundle: Bundle) -> None:
    """Raises UsageError if some good rows name another bundle."""
    others = {str(row.get("bundle")) for row in rows} - {bundle.label}
    if others:
        raise UsageError(f"rows of {', '.join(sorted(others))}, not of {bundle.label}; give their bundle with --bundle")


def find_changed_images(rows: Sequence[Row]) -> dict[int, str]:
    """Returns, by the index of its row, why an image is not the one of the row; reads every image."""
    reasons = {}
    with ThreadPoolExecutor(cores()) as pool:
        digests = pool.map(compute_digest, [row["file"] for row in rows])
        for index, (row, digest) in enumerate(zip(rows, digests, strict=True)):
            if digest is None:
                reasons[index] = "the image cannot be read any more"
            elif digest != row.get("sha256"):
                reasons[index] = "the image has changed since the row was written"
    return reasons


def count_draws(row: Row) -> int:
    """The draws of a row; 0 of the posterior mean."""
    draws = row.get("draws")
    return draws if isinstance(draws, int) else 0
