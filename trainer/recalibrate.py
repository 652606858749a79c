"""`probrt calibrate MODEL DATA`: fits the calibration of a model directory anew, on other images."""

from __future__ import annotations

from pathlib import Path

import msgspec

from probrt.runtime.errors import DataError
from probrt.trainer import store
from probrt.trainer.calibration.calibrate import calibrate_model
from probrt.trainer.evaluate.source import read_scored_split
from probrt.trainer.model import Model


def recalibrate_folder(folder: Path, data: Path, draws: int, seed: int = 0) -> tuple[Model, Model, int]:
    """Calibrates a model directory on a data folder and writes the result into its model.json.

    Returns the model before and after, and the number of examples. If the folder holds the data that the model was
    trained on, only their validation split is used.
    Raises DataError for data that cannot be read, or for a folder without a target of any head.
    """
    before, stored = store.load_model(folder)
    scored = read_scored_split(folder, stored, data, "validation")
    examples = scored.examples
    known = [head.is_known(examples.targets[head.name]).numpy().any() for head in before.heads]
    if not any(known):
        raise DataError(f"{data}: no example has a target of {', '.join(head.name for head in before.heads)}")
    after = calibrate_model(before, examples, seed, draws)
    source = {"data_digest": scored.digest, "split": scored.split, "examples": len(examples)}
    renewed = msgspec.structs.replace(
        stored, calibration=list(after.calibration), provenance=stored.provenance | {"calibration": source}
    )
    store.save_record(folder, renewed)
    return before, after, len(examples)
