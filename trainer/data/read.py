"""Reads a data set: checks every row, file and label, and lists all faults at once."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import DataError, ImageError
from probrt.runtime.images.decode import decode, fit_array, read_bytes
from probrt.trainer.config.settings import DataSettings
from probrt.trainer.data.augment import check_augmentation
from probrt.trainer.data.examples import SPLITS, Dataset, Examples, allocate
from probrt.trainer.data.masks import parse_mask_file
from probrt.trainer.data.splits import assign_splits
from probrt.trainer.data.table import FILE, Row, Table, read_table
from probrt.trainer.heads import AnyHead

_LISTED = 20


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


class FaultyData(DataError):
    """Data with faults; `faults` has one line each, in the order of the rows."""

    def __init__(self, where: Path, faults: Sequence[str]) -> None:
        more = f"; and {len(faults) - _LISTED} more, all listed above" if len(faults) > _LISTED else ""
        super().__init__(f"{where}: {len(faults)} faults: " + "; ".join(faults[:_LISTED]) + more)
        self.faults = tuple(faults)


def read_dataset(config: DataSource, folder: Path) -> Dataset:
    """Reads all examples of a config whose `data.folder` is relative to `folder`.

    Raises FaultyData with every faulty file and cell and its row; DataError for a table that cannot be read at all or
    lacks a column; ConfigError for an augmentation that the input cannot have.
    """
    check_augmentation(config.data, config.input)
    root = folder / config.data.folder
    table = read_table(root, config.data.table, config.heads)
    identity = FILE if FILE in table.columns or not config.data.features else ""
    table.check_columns([*([identity] if identity else []), *config.data.features])
    table.check_columns([column for head in config.heads for column in head.columns])
    reader = _Reader(config, root, table)
    splits = assign_splits(table, config.data, seed=config.seed, identity=identity, report=reader.add_fault)
    for name in SPLITS[:2]:
        if name not in splits and not reader.faults:
            raise DataError(f"{table.where}: no row is in the {name} split")
    return reader.read(splits)


def read_folder(config: DataSource, root: Path) -> Dataset:
    """Reads a whole data folder into one split named test, whatever splits its table names.

    Raises as `read_dataset`.
    """
    table = read_table(root, config.data.table, config.heads)
    table.check_columns([*([] if config.data.features else [FILE]), *config.data.features])
    table.check_columns([column for head in config.heads for column in head.columns])
    return _Reader(config, root, table).read(["test"] * len(table.rows))


class _Reader:
    """Reads the rows of a table in parallel, straight into the arrays that hold them."""

    def __init__(self, config: DataSource, root: Path, table: Table) -> None:
        self.config, self.root, self.table = config, root, table
        self.faults: list[tuple[int, str]] = []
        self.sides: Counter[tuple[int, ...]] = Counter()
        self.lock = threading.Lock()

    def add_fault(self, row: Row, reason: str) -> None:
        """Adds a fault of a row."""
        with self.lock:
            self.faults.append((row.number, f"{row}: {reason}"))

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

        def read_row(place: int) -> bytes:
            row = rows[place]
            image, sides, digest = self._read_image(row)
            if image is not None and image.shape != tuple(shape):
                self.add_fault(row, f"{_name(row)}: {list(image.shape)} where the first image has {list(shape)}")
                image = None
            if image is not None:
                if images.dtype == np.uint8 and not np.array_equal(image, np.rint(image)):
                    fractional[place] = image
                else:
                    images[place] = image
            for head in self.config.heads:
                try:
                    targets[head.name][place], mask_digest = self._read_target(head, row, tuple(shape[:-1]), sides)
                    digest += mask_digest
                except (ValueError, OSError, ImageError) as error:
                    self.add_fault(row, f"{_name(row)}: {head.target}: {_reason(error)}")
            return digest

        with ThreadPoolExecutor() as pool:
            digests = list(pool.map(read_row, range(len(rows))))
        if self.faults:
            raise FaultyData(self.table.where, [text for _, text in sorted(self.faults, key=lambda fault: fault[0])])
        if fractional:
            whole, images = images, allocate(images.shape, np.dtype(np.float32))
            for place in range(len(rows)):
                images[place] = fractional.get(place, whole[place])
        examples = {}
        for split in SPLITS:
            places = np.flatnonzero(np.array([name == split for name in splits]))
            if len(places):
                examples[split] = Examples(
                    tuple(_name(rows[place]) for place in places),
                    _take(images, places),
                    {name: _take(values, places) for name, values in targets.items()},
                )
        digest = hashlib.sha256()
        for row, file_digests in zip(rows, digests, strict=True):
            digest.update(repr(sorted(row.cells.items())).encode() + file_digests)
        return Dataset(examples, digest.hexdigest(), dict(self.sides), tuple(_notes(splits, digests, rows)))

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

    def _read_image(self, row: Row) -> tuple[np.ndarray | None, tuple[int, ...], bytes]:
        """Reads the row's input, its sides in the file, and the file's digest; adds a fault, and returns None, if it
        cannot."""
        try:
            if self.config.data.features:
                return fit_array(self._parse_features(row), self.config.input), (), b""
            data = self._read_bytes(row.cells[FILE].strip())
            decoded = decode(data, self.config.input)
            sides = decoded.sides or decoded.pixels.shape[:-1]
            with self.lock:
                self.sides[sides] += 1
            return decoded.pixels, sides, hashlib.sha256(data).digest()
        except (OSError, ImageError, ValueError) as error:
            self.add_fault(row, f"{_name(row)}: {_reason(error)}")
            return None, (), b""

    def _parse_features(self, row: Row) -> np.ndarray:
        values = []
        for column in self.config.data.features:
            try:
                values.append(float(row.cells[column]))
            except ValueError:
                raise ImageError(f"{column} is {row.cells[column]!r}, not a number") from None
        return np.array(values)

    def _read_target(
        self, head: AnyHead, row: Row, sides: tuple[int, ...], file_sides: tuple[int, ...]
    ) -> tuple[np.ndarray, bytes]:
        """Reads a head's target and the digest of its mask file; file_sides: of the image before any resizing."""
        cells = [row.cells[column].strip() for column in head.columns]
        if not head.per_position:
            return head.parse_cells(cells), b""
        if not cells[0]:
            return head.missing_target(sides), b""
        data = self._read_bytes(cells[0])
        return parse_mask_file(data, head, sides, file_sides), hashlib.sha256(data).digest()


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


def _notes(splits: Sequence[str], digests: Sequence[bytes], rows: Sequence[Row]) -> list[str]:
    """Warns of the same picture in two splits, which makes scores look better than they are."""
    first: dict[bytes, int] = {}
    shared = [
        (first[digest], place)
        for place, digest in enumerate(digests)
        if digest and splits[first.setdefault(digest, place)] != splits[place]
    ]
    if not shared:
        return []
    earlier, later = shared[0]
    return [
        f"{len(shared)} files are byte for byte in two splits, such as {_name(rows[earlier])} ({splits[earlier]}) and "
        f"{_name(rows[later])} ({splits[later]}); use data.group to keep copies together"
    ]
