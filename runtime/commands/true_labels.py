"""True labels from a CSV, matched to predicted files by the ends of their names."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probrt.runtime.errors import UsageError
from probrt.runtime.tables import UnreadableTable, find_delimiter, find_encoding, open_csv


@dataclass(frozen=True)
class TrueLabels:
    """Labels by head, for each file: `rows` by the parts of a name, which may begin in any folder."""

    rows: Mapping[tuple[str, ...], Mapping[str, str]]

    @property
    def first_name(self) -> Path:
        """One of the names, as an example."""
        return Path(*next(iter(self.rows)))

    def of_file(self, file: str) -> Mapping[str, str]:
        """The labels under the longest end of a file's name that has some; whole folders count, parts of names not."""
        name = self._find_name(file)
        return self.rows[name] if name else {}

    def count_unused(self, files: Iterable[str]) -> int:
        """The number of names that label none of the files."""
        return len(self.rows.keys() - {self._find_name(file) for file in files})

    def _find_name(self, file: str) -> tuple[str, ...]:
        """The longest end of a file's name that is one of the names; empty without any."""
        parts = Path(file).parts
        return next((parts[first:] for first in range(len(parts)) if parts[first:] in self.rows), ())


def read_true_labels(path: Path) -> TrueLabels:
    """Reads a CSV with a column file or file_name and a column per head; UsageError for any other.

    Delimiters and encodings are those that training data may have. Empty cells are left out.
    """
    try:
        data = path.read_bytes()
        encoding = find_encoding(data)
        header = next(iter(data.decode(encoding).splitlines()), "")
        with open_csv(path, encoding=encoding, strict=False, delimiter=find_delimiter(header)) as table:
            column = next((name for name in ("file", "file_name") if name in table.columns), None)
            if column is None:
                raise UsageError(f"--labels {path}: needs a column file or file_name and a column per head")
            rows = {
                Path(row[column]).parts: {name: cell for name, cell in row.items() if name and name != column and cell}
                for _, row in table.rows
                if row[column]
            }
    except FileNotFoundError:
        raise UsageError(f"--labels {path}: no such file") from None
    except UnreadableTable as error:
        raise UsageError(f"--labels {path}: not readable as CSV: {error}") from None
    if not rows:
        raise UsageError(f"--labels {path}: names no file")
    return TrueLabels(rows)


def is_wrong(values: Mapping[str, Any], true_label: str) -> bool | None:
    """Whether the values of a head miss the true label: another class, or a number outside the interval.

    None if it cannot be told: the head has neither, or the label is no number.
    """
    if isinstance(values.get("label"), str):
        return bool(true_label != values["label"])
    interval = values.get("interval")
    if not isinstance(interval, list) or len(interval) != 2:
        return None
    if not all(isinstance(end, (int, float)) for end in interval):
        return None
    try:
        return not float(interval[0]) <= float(true_label) <= float(interval[1])
    except ValueError:
        return None
