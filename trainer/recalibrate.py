"""`probrt calibrate MODEL DATA`: fits the calibration and novelty of a model directory anew, and renews its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from probrt.runtime.errors import DataError
from probrt.runtime.files import write_atomic
from probrt.trainer import store
from probrt.trainer.calibration.calibrate import calibrate_model
from probrt.trainer.calibration.novelty import describe_novelty, renew_novelty
from probrt.trainer.card import describe_recalibration, renew_sections
from probrt.trainer.evaluate.source import read_images, read_scored_split
from probrt.trainer.model import Model
from probrt.trainer.novelty.archive import NoveltyEntry
from probrt.trainer.novelty.fit import NoNovelty
from probrt.trainer.store import StoredModel


@dataclass(frozen=True)
class Recalibration:
    """A model before and after, the number of images, and what became of its novelty."""

    before: Model
    after: Model
    images: int
    novelty: str


def recalibrate_folder(folder: Path, data: Path, draws: int, seed: int = 0) -> Recalibration:
    """Calibrates a model directory on a folder of labelled images and writes the result into it.

    If the folder holds the data that the model was trained on, only their validation split is used.
    Raises DataError for data that cannot be read, or for a folder without a target of any head.
    """
    model, stored = store.load_model(folder)
    scored = read_scored_split(folder, stored, data, "validation")
    examples = scored.examples
    known = [head.is_known(examples.targets[head.name]).numpy().any() for head in model.heads]
    if not any(known):
        raise DataError(f"{data}: no example has a target of {', '.join(head.name for head in model.heads)}")
    calibrated = calibrate_model(model, examples, seed, draws)
    try:
        calibrated = renew_novelty(calibrated, examples, seed)
        novelty = describe_novelty(calibrated)
    except NoNovelty as reason:
        novelty = f"{'as it was' if model.novelty else 'none'}: {reason}"
    source = {"data_digest": scored.digest, "split": scored.split, "examples": len(examples)}
    renewed = msgspec.structs.replace(
        stored,
        calibration=list(calibrated.calibration),
        provenance=stored.provenance | {"calibration": source, "novelty": novelty},
    )
    lines = describe_recalibration(calibrated.calibration, len(examples), scored.digest)
    _renew_card(folder, {"Calibration": lines, "Novelty": [f"- {novelty}"]})
    _save(folder, calibrated, renewed)
    return Recalibration(model, calibrated, len(examples), novelty)


def renew_folder_novelty(folder: Path, data: Path, seed: int = 0) -> Recalibration:
    """Renews only the novelty of a model directory, on a folder of images without labels.

    Raises DataError for images that cannot be read, or too few of them.
    """
    model, stored = store.load_model(folder)
    examples, skipped = read_images(data, model.input)
    if skipped:
        raise DataError(f"{data}: {len(skipped)} files cannot be read, such as {skipped[0]}; remove them")
    try:
        renewed = renew_novelty(model, examples, seed)
    except NoNovelty as reason:
        raise DataError(f"{data}: no novelty: {reason}") from None
    novelty = describe_novelty(renewed)
    _renew_card(folder, {"Novelty": [f"- {novelty}"]})
    _save(folder, renewed, msgspec.structs.replace(stored, provenance=stored.provenance | {"novelty": novelty}))
    return Recalibration(model, renewed, len(examples), novelty)


def _renew_card(folder: Path, sections: Mapping[str, Sequence[str]]) -> None:
    """Replaces sections of the model card; a model directory that has lost its card stays without one."""
    path = folder / store.CARD
    if path.is_file():
        write_atomic(path, renew_sections(path.read_text(encoding="utf-8"), sections).encode())


def _save(folder: Path, model: Model, stored: StoredModel) -> None:
    """Writes novelty.npz, then model.json, each whole or not at all."""
    entry = None
    if model.novelty is not None:
        store.save_novelty(folder, model.novelty)
        entry = NoveltyEntry.of(model.novelty)
    store.save_record(folder, msgspec.structs.replace(stored, novelty=entry))
