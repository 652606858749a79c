"""A model directory: config, architecture, weights, sample images; no pickles, no code.

model/  model.json          name, input, heads, calibration, provenance
        architecture.json   the Keras network
        weights.weights.h5  its variables
        images.npy          some raw training images, for checks at export
        targets.npz         the targets of these images by head, where they are known
        card.md             the model card, for people
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import keras
import msgspec
import numpy as np
from msgspec import Struct

from probrt.runtime.bundle.manifest import Calibration, Input
from probrt.runtime.errors import DataError, one_line
from probrt.runtime.files import write_atomic
from probrt.trainer import backbones, layers  # noqa: F401  (register the layers that architecture.json names)
from probrt.trainer.extensions import convert_record, find_unknown_tag, load_installed
from probrt.trainer.heads import AnyHead
from probrt.trainer.model import Model


class StoredModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of model.json. Provenance is free-form: config, versions, data digest, metrics."""

    name: str
    input: Input
    heads: list[AnyHead]
    calibration: list[Calibration] = []
    provenance: dict[str, Any]


def save_model(
    model: Model,
    folder: Path,
    *,
    images: np.ndarray,
    targets: Mapping[str, np.ndarray] = MappingProxyType({}),
    provenance: dict[str, Any],
    card: str = "",
) -> None:
    """Writes a model directory.

    images: raw images [count, *input.shape]. targets: theirs by head, [count, …]. card: the model card in Markdown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored = StoredModel(
        name=model.name,
        input=model.input,
        heads=list(model.heads),
        calibration=list(model.calibration),
        provenance=provenance,
    )
    (folder / "architecture.json").write_text(model.network.to_json(indent=1))
    model.network.save_weights(folder / "weights.weights.h5")
    np.save(folder / "images.npy", images, allow_pickle=False)
    np.savez_compressed(folder / "targets.npz", allow_pickle=False, **targets)
    (folder / "card.md").write_text(card or f"# {model.name}\n", encoding="utf-8")
    save_record(folder, stored)  # comes last, so that a folder with a model.json holds a whole model


def save_record(folder: Path, stored: StoredModel) -> None:
    """Writes model.json, or leaves it as it was and raises OSError."""
    write_atomic(folder / "model.json", msgspec.json.format(msgspec.json.encode(stored), indent=1) + b"\n")


def load_model(folder: Path) -> tuple[Model, StoredModel]:
    """Returns the model of a model directory and the content of its model.json.

    Raises DataError if the folder is no model directory or is damaged.
    """
    load_installed()
    try:
        stored = convert_record(msgspec.json.decode((folder / "model.json").read_bytes()), StoredModel)
        network = keras.models.model_from_json((folder / "architecture.json").read_text())
        network.load_weights(folder / "weights.weights.h5")
    except FileNotFoundError as error:
        missing = Path(error.filename).name if error.filename else "a file"
        raise DataError(f"{folder}: no model here ({missing} is missing); make one with `probrt train`") from None
    except (msgspec.MsgspecError, ValueError, OSError, KeyError, TypeError) as error:
        if unknown := find_unknown_tag(error):
            raise DataError(
                f"{folder}: nothing here defines the {unknown.kind} {unknown.tag!r}; install the package that does, "
                "or import the module first"
            ) from None
        raise DataError(f"{folder}: the model is damaged ({one_line(error)[:300]}); train it again") from None
    return Model(stored.name, stored.input, tuple(stored.heads), network, tuple(stored.calibration)), stored


def load_images(folder: Path) -> np.ndarray:
    """Returns the raw training images of a model directory, float32 [count, *input.shape]."""
    images: np.ndarray = np.load(folder / "images.npy", allow_pickle=False)
    return images.astype(np.float32)


def load_targets(folder: Path) -> dict[str, np.ndarray]:
    """Returns the targets of the images of a model directory by head, [count, …]; empty if they are not known."""
    if not (folder / "targets.npz").exists():
        return {}
    with np.load(folder / "targets.npz", allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
