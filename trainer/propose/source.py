"""Finds what a folder holds: a table, class folders, or images with masks beside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from probrt.runtime.errors import DataError
from probrt.runtime.images.inputs import is_image_name
from probrt.trainer.config.settings import DataSettings
from probrt.trainer.data.examples import SPLIT_WORDS
from probrt.trainer.data.table import FILE, TABLES, read_table
from probrt.trainer.propose.annotations import find_annotations

Cells = dict[str, str]
CLASS_COLUMN = "label"
_TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
_MASK_FOLDERS = ("mask", "masks", "labels", "annotations", "segmentation", "segmentations")
_MASK_ENDINGS = ("_mask", "-mask", ".mask", "_masks", "_seg", "_label")


@dataclass(frozen=True)
class Source:
    """The rows of a folder.

    kind: what the rows come from, for people. table: the table's name in the folder; empty for class folders and for
    rows that no file lists. written: the rows are to be written as a table, because no file lists them. labels: the
    classes, for class folders.
    """

    root: Path
    kind: str
    rows: list[Cells]
    table: str = ""
    written: bool = False
    labels: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in order."""
        return list(dict.fromkeys(name for cells in self.rows for name in cells))

    def cells(self, column: str) -> list[str]:
        """The text of a column, empty where it is missing."""
        return [cells.get(column, "").strip() for cells in self.rows]


def find_source(root: Path, masks_out: Path) -> Source:
    """Finds the rows of a folder; masks_out: the folder for masks that annotations draw.

    Raises DataError for a folder without images, with several tables, or with images that nothing labels.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    tables = sorted(path.name for path in root.iterdir() if path.suffix.lower() in _TABLE_SUFFIXES and path.is_file())
    known = [name for name in TABLES if name in tables]
    if known or len(tables) == 1:
        return _read_table(root, (known or tables)[0])
    if tables:
        raise DataError(f"{root}: several tables ({', '.join(tables)}); name the one with the labels metadata.csv")
    annotated = find_annotations(root, masks_out)
    if annotated:
        return Source(root, annotated.kind, annotated.rows, written=True, notes=annotated.notes)
    files = [
        path.relative_to(root)
        for path in sorted(root.rglob("*"))
        if is_image_name(path.name) and path.is_file() and not any(part[0] == "." for part in path.parts if part)
    ]
    if not files:
        raise DataError(f"{root}: holds no images, no table and no annotations")
    rows = _pair_masks(files)
    if rows:
        return Source(root, f"{len(rows)} images with masks beside them", rows, written=True)
    return _class_folders(root, files)


def _read_table(root: Path, name: str) -> Source:
    table = read_table(root, DataSettings(folder=".", table=name), [])
    if FILE not in table.columns:
        raise DataError(
            f"{table.where}: no column names the images; call it {FILE} (for feature vectors write a config with "
            "data.features)"
        )
    missing = [row for row in table.rows if not (root / row.cells[FILE].strip()).is_file()]
    if missing:
        first, count = missing[0], len(missing)
        raise DataError(
            f"{table.where}: {count} of {len(table.rows)} images are not there, such as {first.cells[FILE]!r} in "
            f"{first}; paths are relative to the table's folder"
        )
    rows = [row.cells for row in table.rows]
    amount = f"{len(rows)} row" + ("" if len(rows) == 1 else "s")
    return Source(root, f"{name}, {amount}", rows, "" if name in TABLES else name, notes=list(table.notes))


def _pair_masks(files: list[Path]) -> list[Cells]:
    """Pairs images with masks by name: masks/x.png beside images/x.jpg, or x_mask.png beside x.jpg."""
    by_stem: dict[tuple[str, str], str] = {}
    images: list[Path] = []
    for path in files:
        folders = [part for part in path.parts[:-1] if part.lower() in _MASK_FOLDERS]
        ending = next((end for end in _MASK_ENDINGS if path.stem.lower().endswith(end)), "")
        if not folders and not ending:
            images.append(path)
            continue
        stem = path.stem[: -len(ending)] if ending else path.stem
        by_stem.setdefault((_place(path), stem), path.as_posix())
    rows = []
    for path in images:
        mask = by_stem.get((_place(path), path.stem), "")
        rows.append({FILE: path.as_posix(), "mask": mask} | _split_cell(path))
    return rows if any(cells["mask"] for cells in rows) else []


def _place(path: Path) -> str:
    """The folder of an image or a mask, without the words that tell images from masks."""
    words = (*_MASK_FOLDERS, "image", "images", "img", "imgs")
    return "/".join(part for part in path.parts[:-1] if part.lower() not in words)


def _split_cell(path: Path) -> Cells:
    split = next((SPLIT_WORDS[part.lower()] for part in path.parts[:-1] if part.lower() in SPLIT_WORDS), "")
    return {"split": split} if split else {}


def _class_folders(root: Path, files: list[Path]) -> Source:
    splits = len({path.parts[0] for path in files if len(path.parts) > 2 and path.parts[0].lower() in SPLIT_WORDS})
    rows, loose = [], []
    for path in files:
        inside = path.parts[1:] if splits and path.parts[0].lower() in SPLIT_WORDS else path.parts
        if len(inside) < 2:
            loose.append(path.as_posix())
            continue
        rows.append({FILE: path.as_posix(), CLASS_COLUMN: inside[0]} | (_split_cell(path) if splits else {}))
    if not rows:
        raise DataError(
            f"{root}: {len(files)} images and nothing that labels them; put them into a folder per class, list them in "
            "metadata.csv, or put masks beside them (masks/ or x_mask.png)"
        )
    if loose:
        raise DataError(f"{root}: {loose[0]} lies in no class folder ({len(loose)} such); move it into one")
    labels = tuple(sorted({cells[CLASS_COLUMN] for cells in rows}))
    if len(labels) < 2:
        raise DataError(f"{root}: all {len(rows)} images lie in one class folder, {labels[0]}; two or more are needed")
    kind = f"{len(rows)} images in {len(labels)} class folders" + (", in folders per split" if splits else "")
    return Source(root, kind, rows, labels=labels)
