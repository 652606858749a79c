"""Training data: an image folder and its table, checked whole before any training."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import tensorflow as tf

from probrt.runtime.errors import DataError, ImageError
from probrt.runtime.images import read_image
from probrt.runtime.manifest import Input
from probrt.trainer.config import Config
from probrt.trainer.heads import AnyHead

SPLITS = ("train", "validation", "test")
_LISTED = 20


@dataclass(frozen=True)
class Examples:
    """One split: images [count, *input.shape] and each head's targets [count, …], in the table's order.

    Images of a [0, 255] range are uint8, others float32. Missing targets are NaN (-1 for a class).
    """

    files: tuple[str, ...]
    images: np.ndarray
    targets: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.files)


@dataclass(frozen=True)
class Data:
    """The splits of a table, and a digest over its rows and every image's bytes."""

    splits: dict[str, Examples]
    digest: str


def read(config: Config, folder: Path) -> Data:
    """All examples of a config whose `data.folder` is relative to `folder`.

    Raises DataError that lists every faulty file and cell at once, with its row.
    """
    root = folder / config.data.folder
    table = root / config.data.table
    rows = _rows(table, ["file_name", config.data.split, *(column for head in config.heads for column in head.columns)])
    faults: list[str] = []
    with ThreadPoolExecutor() as pool:
        read_rows = list(pool.map(lambda row: _example(*row, root, config, faults), enumerate(rows, start=2)))
    if faults:
        faults.sort(key=lambda fault: int(fault.split()[1].rstrip(":")))
        more = f"; and {len(faults) - _LISTED} more" if len(faults) > _LISTED else ""
        raise DataError(f"{table}: {len(faults)} faults: " + "; ".join(faults[:_LISTED]) + more)
    digest = hashlib.sha256()
    splits = {}
    for name in SPLITS:
        chosen = [one for row, one in zip(rows, read_rows, strict=True) if row[config.data.split] == name]
        if not chosen and name != "test":
            raise DataError(f"{table}: no row has {config.data.split} = {name}")
        if chosen:
            splits[name] = _stacked(chosen, config)
    for row, one in zip(rows, read_rows, strict=True):
        digest.update(repr(sorted(row.items())).encode() + one["digest"])
    return Data(splits, digest.hexdigest())


def standardised(heads: Sequence[AnyHead], train: Examples) -> tuple[AnyHead, ...]:
    """The heads with the mean and standard deviation of their training targets filled in."""
    return tuple(head.standardised(train.targets[head.name]) for head in heads)


def batches(examples: Examples, batch: int, seed: tuple[int, int], shift: int) -> tf.data.Dataset:
    """One epoch of shuffled, augmented batches {"images", "targets"}; the last may be short.

    seed: of the run, and the epoch: an epoch's order and shifts depend on nothing before it.
    """
    order = np.random.default_rng(seed).permutation(len(examples))
    slices = {
        "images": examples.images[order],
        "targets": {name: target[order] for name, target in examples.targets.items()},
    }
    steps = tf.data.Dataset.from_tensor_slices(slices).batch(batch).enumerate()
    key = np.random.default_rng((*seed, 1)).integers(2**31 - 1, dtype=np.int32)
    return steps.map(lambda step, one: _shifted(one, shift, key, step), num_parallel_calls=2).prefetch(4)


def evaluation_batches(examples: Examples, batch: int) -> tf.data.Dataset:
    """Batches in order, not augmented."""
    slices = {"images": examples.images, "targets": examples.targets}
    return tf.data.Dataset.from_tensor_slices(slices).batch(batch).map(_floating)


def _shifted(one: dict, shift: int, seed: np.int32, step: tf.Tensor) -> dict:
    """Image and per-position targets moved together by up to `shift` pixels, mirrored at the edges."""
    one = _floating(one)
    if shift == 0:
        return one
    images = one["images"]
    maps = {name: target for name, target in one["targets"].items() if len(target.shape) == len(images.shape)}
    together = tf.concat([images, *maps.values()], axis=-1)
    padded = tf.pad(together, [[0, 0], [shift, shift], [shift, shift], [0, 0]], mode="SYMMETRIC")
    key = tf.stack([seed, tf.cast(step, tf.int32)])
    corners = tf.random.stateless_uniform([tf.shape(images)[0], 2], key, 0, 2 * shift + 1, tf.int32)
    rows = corners[:, :1] + tf.range(images.shape[1])
    columns = corners[:, 1:] + tf.range(images.shape[2])
    moved = tf.gather(tf.gather(padded, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)
    parts = tf.split(moved, [images.shape[-1], *(target.shape[-1] for target in maps.values())], axis=-1)
    return {"images": parts[0], "targets": {**one["targets"], **dict(zip(maps, parts[1:], strict=True))}}


def _floating(one: dict) -> dict:
    return {"images": tf.cast(one["images"], tf.float32), "targets": one["targets"]}


def _rows(table: Path, needed: list[str]) -> list[dict[str, str]]:
    try:
        with table.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            missing = [column for column in needed if column not in (reader.fieldnames or [])]
            if missing:
                raise DataError(f"{table}: no column {missing[0]!r}; it has {', '.join(reader.fieldnames or ['none'])}")
            rows = list(reader)
    except FileNotFoundError:
        raise DataError(f"{table}: no such table; check data.folder and data.table in the config") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: not a UTF-8 CSV table ({error})") from None
    if not rows:
        raise DataError(f"{table}: has no rows")
    return [{key: value or "" for key, value in row.items() if key is not None} for row in rows]


def _example(number: int, row: dict[str, str], root: Path, config: Config, faults: list[str]) -> dict:
    """One row's image and targets; whatever is wrong is appended to `faults`."""
    found: dict = {"file": row["file_name"], "targets": {}, "digest": b""}
    split = row[config.data.split]
    if split not in SPLITS:
        faults.append(f"row {number}: {config.data.split} is {split!r}, none of {', '.join(SPLITS)}")
    try:
        data = (root / row["file_name"]).read_bytes()
        found["digest"] = hashlib.sha256(data).digest()
        found["image"] = read_image(data, config.input)
    except (OSError, ImageError) as error:
        faults.append(f"row {number}: {row['file_name']}: {getattr(error, 'strerror', None) or error}")
        return found
    for head in config.heads:
        try:
            found["targets"][head.name] = _target(head, row, root, config.input)
        except (ValueError, OSError, ImageError) as error:
            reason = getattr(error, "strerror", None) or error
            faults.append(f"row {number}: {row['file_name']}: {head.target}: {reason}")
    return found


def _target(head: AnyHead, row: dict[str, str], root: Path, input: Input) -> np.ndarray:
    cells = [row[column].strip() for column in head.columns]
    if not head.per_position:
        return head.parse(cells)
    sides = input.shape[:-1]
    if not cells[0]:
        return head.missing(sides)
    grey = msgspec.structs.replace(input, shape=[*sides, 1], colour="grey", resize="none", range=(0, 255))
    return head.from_map(read_image((root / cells[0]).read_bytes(), grey), 255.0)


def _stacked(chosen: list[dict], config: Config) -> Examples:
    images = np.stack([one["image"] for one in chosen])
    if config.input.range == (0.0, 255.0):
        images = images.astype(np.uint8)
    targets = {head.name: np.stack([one["targets"][head.name] for one in chosen]) for head in config.heads}
    return Examples(tuple(one["file"] for one in chosen), images, targets)
