"""Reads a data set: checks every row, file and label, and lists all faults at once."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import DataError, ImageError
from probrt.runtime.images.decode import decode, fit_array, read_bytes
from probrt.trainer.config.settings import DataSettings
from probrt.trainer.data.augment import check_augmentation
from probrt.trainer.data.examples import SPLITS, Dataset, Examples, allocate
from probrt.trainer.data.faults import FaultList
from probrt.trainer.data.masks import MaskScale, read_mask
from probrt.trainer.data.notes import PictureSurvey, has_targets, note_copies, note_targets
from probrt.trainer.data.splits import assign_splits
from probrt.trainer.data.table import FILE, Table, read_table
from probrt.trainer.data.table_files import Row
from probrt.trainer.heads import AnyHead
from probrt.trainer.heads.formulas import parse_number

# How many files the survey looks at, spread evenly over the table.
_SURVEYED = 64


class DataSource(Protocol):
    """The settings that reading needs; a training config has them."""

    @property
    def data(self) -> DataSettings: ...
    @property
    def input(self) -> Input: ...
    @property
    def heads(self) -> Sequence[AnyHead]: ...
    @property
    def seed(self) -> int: ...


def read_dataset(config: DataSource, folder: Path) -> Dataset:
    """Reads all examples of a config whose `data.folder` is relative to `folder`.

    Raises FaultyData with every faulty file and cell and its row; DataError for a table that cannot be read at all,
    lacks a column, or has no training target for a head; ConfigError for an augmentation that the input cannot have.
    """
    check_augmentation(config.data, config.input)
    root = folder / config.data.folder
    table = read_table(root, config.data, config.heads)
    identity = FILE if FILE in table.columns or not config.data.features else ""
    table.check_columns([*([identity] if identity else []), *config.data.features])
    table.check_columns([column for head in config.heads for column in head.columns])
    reader = _Reader(config, root, table)
    splits, split_notes = assign_splits(table, config.data, seed=config.seed, identity=identity, faults=reader.faults)
    for name in SPLITS[:2]:
        if name not in splits and not reader.faults:
            raise DataError(f"{table.where}: no row is in the {name} split")
    dataset = reader.read(splits)
    for head in config.heads:
        if not has_targets(head, dataset.splits["train"]):
            raise DataError(
                f"{table.where}: {head.target}: none of the {len(dataset.splits['train'])} rows of the train split has "
                "a target, so the head could learn nothing; fill the column, or leave out the head"
            )
    notes = (*table.notes, *split_notes, *dataset.notes, *note_targets(dataset.splits, config.heads))
    return dataclasses.replace(dataset, notes=notes)


def read_folder(config: DataSource, root: Path) -> Dataset:
    """Reads a whole data folder into one split named test, whatever splits its table names.

    Raises as `read_dataset`, but every target may be missing.
    """
    table = read_table(root, config.data, config.heads)
    table.check_columns([*([] if config.data.features else [FILE]), *config.data.features])
    table.check_columns([column for head in config.heads for column in head.columns])
    dataset = _Reader(config, root, table).read(["test"] * len(table.rows))
    return dataclasses.replace(dataset, notes=(*table.notes, *dataset.notes))


class _Reader:
    """Reads the rows of a table in parallel, straight into the arrays that hold them."""

    def __init__(self, config: DataSource, root: Path, table: Table) -> None:
        self.config, self.root, self.table = config, root, table
        self.faults = FaultList()
        self.sides: Counter[tuple[int, ...]] = Counter()
        self.lock = threading.Lock()
        self.file_sides: list[tuple[int, ...]] = [()] * len(table.rows)
        self.survey = PictureSurvey(config.input)
        self.surveyed = set(np.linspace(0, len(table.rows) - 1, _SURVEYED).astype(int).tolist())
        self.scales = {head.name: MaskScale() for head in config.heads if head.per_position and head.kind == "binary"}

    def read(self, splits: Sequence[str]) -> Dataset:
        """Reads every row's image and targets; splits: of each row."""
        rows = self.table.rows
        shape = self._image_shape()
        images = allocate([len(rows), *shape], np.dtype(np.uint8 if self._expects_uint8() else np.float32))
        targets: dict[str, np.ndarray] = {}
        for head in self.config.heads:
            missing = head.missing_target(shape[:-1] if head.per_position else ())
            targets[head.name] = allocate([len(rows), *missing.shape], missing.dtype)
        fractional: dict[int, np.ndarray] = {}  # images that uint8 cannot hold

        def read_row(place: int) -> tuple[bytes, bytes]:
            row = rows[place]
            image, self.file_sides[place], image_digest = self._read_image(row, place in self.surveyed)
            mask_digests = b""
            if image is not None and image.shape != tuple(shape):
                self.faults.add(row, _name(row), f"{list(image.shape)} where the first image has {list(shape)}")
                image = None
            if image is not None:
                if images.dtype == np.uint8 and not np.array_equal(image, np.rint(image)):
                    fractional[place] = image
                else:
                    images[place] = image
            for head in self.config.heads:
                try:
                    targets[head.name][place], digest = self._read_target(head, place, tuple(shape[:-1]))
                    mask_digests += digest
                except (ValueError, OSError, ImageError) as error:
                    self.faults.add(row, _name(row), f"{head.target}: {_reason(error)}")
            return image_digest, mask_digests

        with ThreadPoolExecutor() as pool:
            digests = list(pool.map(read_row, range(len(rows))))
            self.faults.check(self.table.where)
            mask_notes = self._rescale_masks(targets, tuple(shape[:-1]), pool)
        if fractional:
            whole, images = images, allocate(images.shape, np.dtype(np.float32))
            for place in range(len(rows)):
                images[place] = fractional.get(place, whole[place])
        names = [_name(row) for row in rows]
        examples = {}
        for split in SPLITS:
            places = np.flatnonzero(np.array([name == split for name in splits]))
            if len(places):
                examples[split] = Examples(
                    tuple(names[place] for place in places),
                    _take(images, places),
                    {name: _take(values, places) for name, values in targets.items()},
                )
        digest = hashlib.sha256()
        for row, row_digests in zip(rows, digests, strict=True):
            digest.update(repr(sorted(row.cells.items())).encode() + b"".join(row_digests))
        image_digests = [image_digest for image_digest, _ in digests]
        copies = note_copies(names, splits, image_digests, targets, self.config.heads)
        notes = (*mask_notes, *copies, *self.survey.notes())
        return Dataset(examples, digest.hexdigest(), dict(self.sides), notes)

    def _image_shape(self) -> list[int]:
        """The model's input shape; the shape of the first readable image where the model leaves sides open."""
        shape = self.config.input.shape
        if None not in shape:
            return [side or 0 for side in shape]
        for row in self.table.rows:
            try:
                return list(decode(self._read_bytes(row.cells[FILE]), self.config.input).pixels.shape)
            except (ImageError, OSError):
                continue
        raise DataError(f"{self.table.where}: none of the {len(self.table.rows)} images can be read")

    def _expects_uint8(self) -> bool:
        return self.config.input.range == (0.0, 255.0) and self.config.input.colour != "none"

    def _read_bytes(self, name: str) -> bytes:
        if not name:
            raise ImageError("no file is named")
        return read_bytes(self.root / name)

    def _read_image(self, row: Row, survey: bool) -> tuple[np.ndarray | None, tuple[int, ...], bytes]:
        """Reads the row's input, its sides in the file, and the file's digest; adds a fault, and returns None, if it
        cannot. survey: whether the survey looks at the file too."""
        try:
            if self.config.data.features:
                return fit_array(self._parse_features(row), self.config.input), (), b""
            data = self._read_bytes(row.cells[FILE].strip())
            decoded = decode(data, self.config.input)
            if survey:
                self.survey.look(data)
            sides = decoded.sides or decoded.pixels.shape[:-1]
            with self.lock:
                self.sides[sides] += 1
            return decoded.pixels, sides, hashlib.sha256(data).digest()
        except (OSError, ImageError, ValueError) as error:
            self.faults.add(row, _name(row), _reason(error))
            return None, (), b""

    def _parse_features(self, row: Row) -> np.ndarray:
        values = []
        for column in self.config.data.features:
            try:
                values.append(parse_number(row.cells[column]))
            except ValueError as error:
                raise ImageError(f"{column} {error}") from None
        return np.array(values)

    def _read_target(self, head: AnyHead, place: int, sides: tuple[int, ...]) -> tuple[np.ndarray, bytes]:
        """Reads a head's target of a row and the digest of its mask file."""
        cells = [self.table.rows[place].cells[column].strip() for column in head.columns]
        if not head.per_position:
            return head.parse_cells(cells), b""
        if not cells[0]:
            return head.missing_target(sides), b""
        data = self._read_bytes(cells[0])
        mask = read_mask(data, sides, self.file_sides[place])
        if head.name in self.scales:
            self.scales[head.name].add(place, mask)
        return head.parse_mask(mask.values, mask.high), hashlib.sha256(data).digest()

    def _rescale_masks(self, targets: dict[str, np.ndarray], sides: tuple[int, ...], pool: Executor) -> list[str]:
        """Reads the masks of heads of yes and no again where the values of all of them show another yes.

        Returns a note for each head. Raises DataError where no value can mean yes, FaultyData where masks disagree.
        """
        notes = []
        for head in self.config.heads:
            scale = self.scales.get(head.name)
            if scale is None:
                continue
            for place, peak in scale.find_odd().items():
                row = self.table.rows[place]
                reason = f"{head.target}: the mask holds 0 and 1 where others reach {peak:g}; write 0 and {peak:g}"
                self.faults.add(row, _name(row), reason)
            try:
                changed = scale.find_high()
            except ValueError as error:
                raise DataError(f"{self.table.where}: {head.target}: {error}") from None

            def read_again(place: int, head: AnyHead = head, changed: dict[float, float] = changed) -> None:
                data = self._read_bytes(self.table.rows[place].cells[head.columns[0]].strip())
                mask = read_mask(data, sides, self.file_sides[place])
                targets[head.name][place] = head.parse_mask(mask.values, changed[mask.high])

            for high, peak in changed.items():
                list(pool.map(read_again, scale.places(high)))
                notes.append(f"{head.name}: the highest value of all masks is {peak:g}; above half of it is yes")
        self.faults.check(self.table.where)
        return notes


def _name(row: Row) -> str:
    return row.cells.get(FILE) or str(row)


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _take(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The values at some places; a view where they are consecutive."""
    if len(places) == places[-1] - places[0] + 1:
        return values[places[0] : places[-1] + 1]
    if not isinstance(values, np.memmap):
        chosen: np.ndarray = values[places]
        return chosen
    copies = allocate([len(places), *values.shape[1:]], values.dtype)
    for to, place in enumerate(places):
        copies[to] = values[place]
    return copies
