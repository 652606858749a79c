"""The examples that an evaluation scores: the model's own split, another folder, or images of another kind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from msgspec import Struct

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import ConfigError, DataError, ImageError
from probrt.runtime.images.decode import SUFFIXES, read_image
from probrt.trainer import data
from probrt.trainer.config.config import Config
from probrt.trainer.config.settings import DataSettings
from probrt.trainer.data import Examples
from probrt.trainer.data.examples import allocate
from probrt.trainer.extensions import convert_record
from probrt.trainer.heads import AnyHead
from probrt.trainer.store import StoredModel


class ModelSource(Struct, frozen=True):
    """The part of a stored model that reading its data needs (a `DataSource`)."""

    data: DataSettings
    input: Input
    heads: list[AnyHead]
    seed: int


@dataclass(frozen=True)
class ScoredSplit:
    """The examples to score, the name of their split, the digest of their data set, and notes for the reader.

    split: `validation`, `test`, or `all` of a folder that the model was not trained on.
    """

    examples: Examples
    split: str
    digest: str
    notes: tuple[str, ...]


def read_scored_split(
    model_folder: Path, stored: StoredModel, other: Path | None, split: Literal["validation", "test"] = "test"
) -> ScoredSplit:
    """Reads a split of the data that a model was trained on (validation if there is no test), or the folder `other`.

    If `other` holds the data that the model was trained on, only their split is read. Raises ConfigError if
    the model does not name its data, DataError for data that cannot be read.
    """
    settings, seed = DataSettings(folder="."), 0
    if "config" in stored.provenance:
        config = convert_record(stored.provenance["config"], Config)
        settings, seed = config.data, config.seed
    elif "source" in stored.provenance:  # of an adopted model, which has no config
        settings = convert_record(stored.provenance["source"]["data"], DataSettings)
        seed = stored.provenance["source"]["seed"]
    source = ModelSource(settings, stored.input, stored.heads, seed)
    digest = stored.provenance.get("data_digest")
    if other is not None:
        dataset = data.read_folder(source, other)
        if dataset.digest != digest:
            return ScoredSplit(dataset.splits["test"], "all", dataset.digest, ())
        folder = other
    elif "data" in stored.provenance:
        folder = (model_folder / stored.provenance["data"]).resolve()
    else:
        raise ConfigError(f"{model_folder}: does not name its data; name a folder with --data")
    here = msgspec.structs.replace(source, data=msgspec.structs.replace(settings, folder="."))
    dataset = data.read_dataset(here, folder)
    notes = [*dataset.notes]
    if dataset.digest != digest:
        notes.append(
            "the data have changed since training: their digest differs; the model may have been trained on some of "
            "these examples"
        )
    if split not in dataset.splits:
        split = "validation"
        notes.append("no test split: the scores are of the split that calibration was fitted on")
    return ScoredSplit(dataset.splits[split], split, dataset.digest, tuple(notes))


def read_images(folder: Path, input: Input) -> tuple[Examples, list[str]]:
    """Reads all images below a folder that the model can take; also returns the files that it cannot, with reasons.

    More than 4 GiB of them lie in a temporary file. Raises DataError if there is no such image, or if they have several
    sizes.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name.lower().endswith(tuple(SUFFIXES)))
    names: list[str] = []
    skipped: list[str] = []
    images = np.empty(0)
    for path in paths:
        name = str(path.relative_to(folder))
        try:
            image = read_image(path, input)
        except ImageError as error:
            skipped.append(f"{name} ({error})")
            continue
        if not names:
            images = allocate([len(paths), *image.shape], np.dtype(np.float32))
        if image.shape != images.shape[1:]:
            raise DataError(f"{folder}: images of several sizes")
        images[len(names)] = image
        names.append(name)
    if not names:
        raise DataError(f"{folder}: no image that the model can take")
    return Examples(tuple(names), images[: len(names)], {}), skipped
