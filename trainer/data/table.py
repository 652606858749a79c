"""The table of a data folder: a file, or the images in folders named after classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from probrt.runtime.errors import DataError
from probrt.runtime.images.decode import SUFFIXES
from probrt.trainer.config.settings import DataSettings
from probrt.trainer.data.examples import SPLIT_WORDS
from probrt.trainer.data.table_files import Row, read_rows
from probrt.trainer.heads import AnyHead

TABLES = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet")
FILE = "file_name"
# Other names of that column, in lower case and with underscores.
_FILE_NAMES = frozenset(
    ("file", "file_name", "filename", "filepath", "file_path", "image", "image_name", "image_path", "image_file",
     "image_filename", "imagepath", "img", "img_name", "img_path", "img_file", "path", "picture")
)  # fmt: skip
_TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Table:
    """Rows of the same columns, the file or folder that they come from, and notes about how it was read."""

    where: Path
    columns: tuple[str, ...]
    rows: list[Row]
    notes: tuple[str, ...] = ()

    def check_columns(self, columns: Sequence[str]) -> None:
        """Raises DataError for the first of these columns that the table lacks."""
        for column in columns:
            if column not in self.columns:
                raise DataError(f"{self.where}: no column {column!r}; it has {', '.join(self.columns) or 'none'}")


def read_table(root: Path, settings: DataSettings, heads: Sequence[AnyHead]) -> Table:
    """Reads `data.table` of a data folder; without it the first of TABLES, else folders named after classes.

    Raises DataError for a table that is not there, cannot be read, or has no rows.
    """
    name = settings.table
    path = root / name if name else next((root / known for known in TABLES if (root / known).is_file()), None)
    if path is None:
        return _read_class_folders(root, heads)
    if not path.is_file():
        raise DataError(f"{path}: no such table; check data.folder and data.table in the config")
    rows, notes = read_rows(path)
    columns = tuple(dict.fromkeys(column for row in rows for column in row.cells))
    used = {settings.split, settings.group, *(column for head in heads for column in head.columns)}
    if FILE in columns or settings.features:
        return Table(path, columns, rows, tuple(notes))
    alike = [name for name in columns if name not in used and _normalise(name) in _FILE_NAMES]
    if len(alike) > 1:
        raise DataError(f"{path}: no column {FILE!r}; rename one of {', '.join(alike)}")
    if alike:
        notes.append(f"column {alike[0]!r} is taken as {FILE}")
        new_names = {alike[0]: FILE}
        columns = tuple(new_names.get(name, name) for name in columns)
        rows = [Row(row.number, {new_names.get(name, name): cell for name, cell in row.cells.items()}) for row in rows]
    return Table(path, columns, rows, tuple(notes))


def _normalise(name: str) -> str:
    return name.lower().replace(" ", "_").replace("-", "_")


def _read_class_folders(root: Path, heads: Sequence[AnyHead]) -> Table:
    """Makes a row of every image in [split/]class/…/file."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; check data.folder in the config")
    tables = sorted(path.name for path in root.iterdir() if path.suffix.lower() in _TABLE_SUFFIXES and path.is_file())
    remedy = "name the table in data.table"
    if tables:
        remedy = "name the table: data.table = " + " or ".join(f'"{name}"' for name in tables)
    no_table = f"{root}: no {', '.join(TABLES)}; {remedy}"
    if len(heads) != 1 or not heads[0].accepts_class_folders or heads[0].per_position:
        raise DataError(no_table)
    head = heads[0]
    rows: list[dict[str, str]] = []
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        parts = path.relative_to(root).parts
        hidden = any(part.startswith(".") for part in parts)
        if hidden or not any(path.name.lower().endswith(suffix) for suffix in SUFFIXES):
            continue
        may_be_split = len(parts) > 2 and parts[0] not in head.names
        split = SPLIT_WORDS.get(parts[0].lower(), "") if may_be_split else ""
        label = parts[bool(split)] if len(parts) > 1 + bool(split) else ""
        rows.append({FILE: "/".join(parts), head.target: label, "split": split})
    labels = ", ".join(head.names)
    if not rows and not tables:
        raise DataError(f"{root}: neither {', '.join(TABLES)} nor images in folders named after the classes {labels}")
    if not any(cells[head.target] in head.names for cells in rows):
        if tables:
            raise DataError(no_table)
        folders = dict.fromkeys(cells[head.target] for cells in rows if cells[head.target])
        named = f"; the folders are {', '.join(list(folders)[:12])}" if folders else ""
        raise DataError(
            f"{root}: no image lies in a folder named after a class ({labels}), and there is no {TABLES[0]}{named}"
        )
    outside = [cells[FILE] for cells in rows if not cells[head.target]]
    if outside:
        more = f" (and {len(outside) - 1} more)" if len(outside) > 1 else ""
        raise DataError(
            f"{root}: {outside[0]} lies in no folder named after a class ({labels}){more}; move it into one, or list "
            f"all images in {TABLES[0]}"
        )
    if not any(cells["split"] for cells in rows):
        rows = [{FILE: cells[FILE], head.target: cells[head.target]} for cells in rows]
    notes = (f"{', '.join(tables)} is not read: the folders name the classes; to read it, {remedy}",) if tables else ()
    return Table(
        root, tuple(rows[0]), [Row(row_number, cells) for row_number, cells in enumerate(rows, start=1)], notes
    )
