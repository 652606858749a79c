"""A model directory: config, architecture, weights, sample images; no pickles, no code.

model/  model.json          name, input, heads, calibration, provenance
        architecture.json   the Keras network
        weights.weights.h5  its variables
        images.npy          some raw training images, for checks at export
        targets.npz         their targets by head, where they are known
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
from probrt.runtime.errors import DataError
from probrt.runtime.files import write_atomic
from probrt.trainer import layers  # noqa: F401  (registers the layers that architecture.json names)
from probrt.trainer.extensions import convert_record, find_unknown_tag, load_installed
from probrt.trainer.heads import AnyHead
from probrt.trainer.model import Model


class StoredModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What model.json holds; provenance is free-form (config, versions, data digest, metrics)."""

    name: str
    input: Input
    heads: list[AnyHead]
    calibration: list[Calibration] = []
    provenance: dict[str, Any]


def save(
    model: Model,
    folder: Path,
    images: np.ndarray,
    provenance: dict[str, Any],
    for_people: str = "",
    targets: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> None:
    """Writes a model directory; images [count, *input.shape] and their targets are kept for checks at export."""
    folder.mkdir(parents=True, exist_ok=True)
    card = StoredModel(
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
    (folder / "card.md").write_text(for_people or f"# {model.name}\n", encoding="utf-8")
    # Last, and in one step: a folder with a model.json is a whole model.
    write_atomic(folder / "model.json", msgspec.json.format(msgspec.json.encode(card), indent=1) + b"\n")


def load(folder: Path) -> tuple[Model, StoredModel]:
    """The model of a model directory; DataError if the folder is none, or is damaged."""
    load_installed()
    try:
        card = convert_record(msgspec.json.decode((folder / "model.json").read_bytes()), StoredModel)
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
        raise DataError(
            f"{folder}: the model is damaged ({' '.join(str(error).split())[:300]}); train it again"
        ) from None
    return Model(card.name, card.input, tuple(card.heads), network, tuple(card.calibration)), card


def images(folder: Path) -> np.ndarray:
    """Raw training images [count, *input.shape] kept with a model, float32."""
    return np.load(folder / "images.npy", allow_pickle=False).astype(np.float32)


def targets(folder: Path) -> dict[str, np.ndarray]:
    """The targets of `images` by head, as the trainer has them; empty where none were known."""
    if not (folder / "targets.npz").exists():
        return {}
    with np.load(folder / "targets.npz", allow_pickle=False) as found:
        return {name: found[name] for name in found.files}
