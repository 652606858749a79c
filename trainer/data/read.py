"""The first pass: every row, file and label read and checked, all faults listed at once."""

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
from probrt.runtime.errors import ConfigError, DataError, ImageError
from probrt.runtime.images.decode import decode, fit_array, read_bytes
from probrt.trainer.config.settings import DataSettings
from probrt.trainer.data.examples import SPLITS, Dataset, Examples, storage
from probrt.trainer.data.masks import mask
from probrt.trainer.data.splits import splits
from probrt.trainer.data.table import FILE, Row, Table, read_table
from probrt.trainer.heads import AnyHead

_LISTED = 20


class DataSource(Protocol):
    """What reading needs to know; a training config is one."""

    @property
    def data(self) -> DataSettings: ...
    @property
    def input(self) -> Input: ...
    @property
    def heads(self) -> Sequence[AnyHead]: ...
    @property
    def seed(self) -> int: ...


class Faulty(DataError):
    """Data with faults; `faults` has one line each, in the order of the rows."""

    def __init__(self, where: Path, faults: Sequence[str]) -> None:
        more = f"; and {len(faults) - _LISTED} more, all listed above" if len(faults) > _LISTED else ""
        super().__init__(f"{where}: {len(faults)} faults: " + "; ".join(faults[:_LISTED]) + more)
        self.faults = tuple(faults)


def read(config: DataSource, folder: Path) -> Dataset:
    """All examples of a config whose `data.folder` is relative to `folder`.

    Raises Faulty, which holds every faulty file and cell with its row; DataError for a table that cannot be
    read at all or lacks a column; ConfigError for an augmentation that the input cannot have.
    """
    _check_augmentation(config.data, config.input)
    root = folder / config.data.folder
    found = read_table(root, config.data.table, config.heads)
    identity = FILE if FILE in found.columns or not config.data.features else ""
    found.check_columns([*([identity] if identity else []), *config.data.features])
    found.check_columns([column for head in config.heads for column in head.columns])
    reader = _Reader(config, root, found)
    chosen = splits(found, config.data, config.seed, identity, reader.fault)
    for name in SPLITS[:2]:
        if name not in chosen and not reader.faults:
            raise DataError(f"{found.where}: no row is in the {name} split")
    return reader.read(chosen)


def folder_of(config: DataSource, root: Path) -> Dataset:
    """A data folder read whole into one split named test, whatever its table says of splits."""
    found = read_table(root, config.data.table, config.heads)
    found.check_columns([*([] if config.data.features else [FILE]), *config.data.features])
    found.check_columns([column for head in config.heads for column in head.columns])
    return _Reader(config, root, found).read(["test"] * len(found.rows))


class _Reader:
    """Reads the rows of a table in parallel, straight into their place."""

    def __init__(self, config: DataSource, root: Path, found: Table) -> None:
        self.config, self.root, self.table = config, root, found
        self.faults: list[tuple[int, str]] = []
        self.sides: Counter[tuple[int, ...]] = Counter()
        self.lock = threading.Lock()

    def fault(self, row: Row, reason: str) -> None:
        """Notes a fault of a row."""
        with self.lock:
            self.faults.append((row.number, f"{row}: {reason}"))

    def read(self, chosen: Sequence[str]) -> Dataset:
        """Every row's image and targets, by split."""
        rows = self.table.rows
        shape = self._shape()
        images = storage([len(rows), *shape], np.dtype(np.uint8 if self._whole() else np.float32))
        targets: dict[str, np.ndarray] = {}
        for head in self.config.heads:
            missing = head.missing(shape[:-1] if head.per_position else ())
            targets[head.name] = storage([len(rows), *np.shape(missing)], np.asarray(missing).dtype)
        wide: dict[int, np.ndarray] = {}  # images that whole numbers cannot hold

        def one(place: int) -> bytes:
            row = rows[place]
            image, sides, digest = self._image(row)
            if image is not None and image.shape != tuple(shape):
                self.fault(row, f"{_name(row)}: {list(image.shape)} where the first image has {list(shape)}")
                image = None
            if image is not None:
                if images.dtype == np.uint8 and not np.array_equal(image, np.rint(image)):
                    wide[place] = image
                else:
                    images[place] = image
            for head in self.config.heads:
                try:
                    targets[head.name][place], bytes_ = self._target(head, row, tuple(shape[:-1]), sides)
                    digest += bytes_
                except (ValueError, OSError, ImageError) as error:
                    reason = getattr(error, "strerror", None) or error
                    self.fault(row, f"{_name(row)}: {head.target}: {reason}")
            return digest

        with ThreadPoolExecutor() as pool:
            digests = list(pool.map(one, range(len(rows))))
        if self.faults:
            raise Faulty(self.table.where, [text for _, text in sorted(self.faults, key=lambda fault: fault[0])])
        if wide:
            narrow, images = images, storage(images.shape, np.dtype(np.float32))
            for place in range(len(rows)):
                images[place] = wide.get(place, narrow[place])
        found = {}
        for split in SPLITS:
            places = np.flatnonzero(np.array([name == split for name in chosen]))
            if len(places):
                found[split] = Examples(
                    tuple(_name(rows[place]) for place in places),
                    _taken(images, places),
                    {name: _taken(values, places) for name, values in targets.items()},
                )
        digest = hashlib.sha256()
        for row, of_files in zip(rows, digests, strict=True):
            digest.update(repr(sorted(row.cells.items())).encode() + of_files)
        return Dataset(found, digest.hexdigest(), dict(self.sides), tuple(_notes(chosen, digests, rows)))

    def _shape(self) -> list[int]:
        """The images' shape: the model's, or the first readable image's where the model leaves sides open."""
        shape = self.config.input.shape
        if None not in shape:
            return [side or 0 for side in shape]
        for row in self.table.rows:
            try:
                return list(decode(self._bytes(row.cells[FILE]), self.config.input).pixels.shape)
            except (ImageError, OSError):
                continue
        raise DataError(f"{self.table.where}: none of the {len(self.table.rows)} images can be read")

    def _whole(self) -> bool:
        return self.config.input.range == (0.0, 255.0) and self.config.input.colour != "none"

    def _bytes(self, name: str) -> bytes:
        if not name:
            raise ImageError("no file is named")
        return read_bytes(self.root / name)

    def _image(self, row: Row) -> tuple[np.ndarray | None, tuple[int, ...], bytes]:
        """The row's input, its sides in the file, and the file's digest; None, and a fault, if it cannot be had."""
        try:
            if self.config.data.features:
                return fit_array(self._features(row), self.config.input), (), b""
            data = self._bytes(row.cells[FILE].strip())
            decoded = decode(data, self.config.input)
            sides = decoded.sides or decoded.pixels.shape[:-1]
            with self.lock:
                self.sides[sides] += 1
            return decoded.pixels, sides, hashlib.sha256(data).digest()
        except (OSError, ImageError, ValueError) as error:
            self.fault(row, f"{_name(row)}: {getattr(error, 'strerror', None) or error}")
            return None, (), b""

    def _features(self, row: Row) -> np.ndarray:
        values = []
        for column in self.config.data.features:
            try:
                values.append(float(row.cells[column]))
            except ValueError:
                raise ImageError(f"{column} is {row.cells[column]!r}, not a number") from None
        return np.array(values)

    def _target(
        self, head: AnyHead, row: Row, sides: tuple[int, ...], in_file: tuple[int, ...]
    ) -> tuple[np.ndarray, bytes]:
        cells = [row.cells[column].strip() for column in head.columns]
        if not head.per_position:
            return head.parse(cells), b""
        if not cells[0]:
            return head.missing(sides), b""
        data = self._bytes(cells[0])
        return mask(data, head, sides, in_file), hashlib.sha256(data).digest()


def _name(row: Row) -> str:
    return row.cells.get(FILE) or str(row)


def _taken(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The values at some places; without a copy where they follow one another."""
    if len(places) == places[-1] - places[0] + 1:
        return values[places[0] : places[-1] + 1]
    if not isinstance(values, np.memmap):
        return values[places]
    taken = storage([len(places), *values.shape[1:]], values.dtype)
    for to, place in enumerate(places):
        taken[to] = values[place]
    return taken


def _notes(chosen: Sequence[str], digests: Sequence[bytes], rows: Sequence[Row]) -> list[str]:
    """The same picture in two splits makes scores look better than they are."""
    first: dict[bytes, int] = {}
    shared = [
        (first[digest], place)
        for place, digest in enumerate(digests)
        if digest and chosen[first.setdefault(digest, place)] != chosen[place]
    ]
    if not shared:
        return []
    one, other = shared[0]
    return [
        f"{len(shared)} files are byte for byte in two splits, such as {_name(rows[one])} ({chosen[one]}) and "
        f"{_name(rows[other])} ({chosen[other]}); use data.group to keep copies together"
    ]


def _check_augmentation(settings: DataSettings, input: Input) -> None:
    rank = len(input.shape) - 1
    sides = ("horizontal", "vertical", "depth")[:rank]
    for name in settings.flip:
        if name not in sides:
            raise ConfigError(
                f"data.flip: {name}: the input has {rank} sides; known here: {', '.join(sides) or 'none'}"
            )
    if rank == 0 and settings.shift:
        raise ConfigError("data.shift: feature vectors have no positions to shift")
    if rank != 2 and (settings.rotate or settings.zoom):
        raise ConfigError(f"data.{'rotate' if settings.rotate else 'zoom'}: only for two-dimensional images")
    if settings.turn and (rank < 2 or input.shape[-3] != input.shape[-2]):
        raise ConfigError(f"data.turn: a quarter turn needs equal sides; the input has {input.shape[:-1]}")
    for name in ("brightness", "contrast", "noise"):
        if getattr(settings, name) and input.range is None:
            raise ConfigError(f"data.{name}: is a part of input.range, which the config does not give")
