"""A model directory: config, architecture, weights, sample images; no pickles, no code.

model/  model.json          name, input, heads, calibration, provenance
        architecture.json   the Keras network
        weights.weights.h5  its variables
        images.npy          some raw training images, for checks at export
        targets.npz         the targets of these images by head, where they are known
        novelty.npz         the distances and scores of novelty, where the model has it
        card.md             the model card, for people
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import keras
import msgspec
import numpy as np
from msgspec import Meta, Struct

from probrt.runtime.bundle.manifest import MODEL_NAME, Calibration, Input
from probrt.runtime.errors import DataError, ProbrtError, one_line
from probrt.runtime.files import open_atomic, write_atomic
from probrt.trainer import backbones, layers  # noqa: F401  (register the layers that architecture.json names)
from probrt.trainer.extensions import convert_record, find_unknown_tag, load_installed
from probrt.trainer.heads import AnyHead
from probrt.trainer.keras_internals import is_functional
from probrt.trainer.model import Model
from probrt.trainer.novelty.archive import NoveltyEntry, list_sizes, make_novelty, to_arrays
from probrt.trainer.novelty.score import Novelty
from probrt.trainer.stored_arrays import check_weights_file, read_array, read_arrays
from probrt.trainer.vet_architecture import vet_architecture

_MODEL, _ARCHITECTURE, _WEIGHTS = "model.json", "architecture.json", "weights.weights.h5"
_IMAGES, _TARGETS, _NOVELTY = "images.npy", "targets.npz", "novelty.npz"
CARD = "card.md"


class StoredModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of model.json. Provenance is free-form: config, versions, data digest, metrics."""

    name: Annotated[str, Meta(pattern=MODEL_NAME)]
    input: Input
    heads: list[AnyHead]
    calibration: list[Calibration] = []
    novelty: NoveltyEntry | None = None
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
        novelty=NoveltyEntry.of(model.novelty) if model.novelty else None,
        provenance=provenance,
    )
    (folder / _ARCHITECTURE).write_text(model.network.to_json(indent=1))
    model.network.save_weights(folder / _WEIGHTS)
    np.save(folder / _IMAGES, images, allow_pickle=False)
    np.savez_compressed(folder / _TARGETS, allow_pickle=False, **targets)
    if model.novelty is not None:
        save_novelty(folder, model.novelty)
    (folder / CARD).write_text(card or f"# {model.name}\n", encoding="utf-8")
    save_record(folder, stored)  # comes last, so that a folder with a model.json holds a whole model


def save_record(folder: Path, stored: StoredModel) -> None:
    """Writes model.json, or leaves it as it was and raises OSError."""
    write_atomic(folder / _MODEL, msgspec.json.format(msgspec.json.encode(stored), indent=1) + b"\n")


def save_novelty(folder: Path, novelty: Novelty) -> None:
    """Writes novelty.npz, or leaves it as it was and raises OSError."""
    with open_atomic(folder / _NOVELTY) as stream:
        np.savez_compressed(stream, allow_pickle=False, **to_arrays(novelty))


def load_model(folder: Path) -> tuple[Model, StoredModel]:
    """Returns the model of a model directory and the content of its model.json.

    Raises DataError, with the file, if the folder is no model directory, is damaged, or names a class that may run
    code.
    """
    stored = _load_stored(folder)
    with _explain_faults(folder / _ARCHITECTURE) as path:
        network = keras.models.model_from_json(vet_architecture(path.read_text(encoding="utf-8")))
        if not is_functional(network) or not isinstance(network.output, Mapping):
            raise ValueError("it is no network with named outputs")
        if absent := [head.name for head in stored.heads if head.name not in network.output]:
            raise ValueError(f"it has no output for the head {absent[0]}")
    with _explain_faults(folder / _WEIGHTS) as path:
        check_weights_file(path, network)
        network.load_weights(path)
    model = Model(stored.name, stored.input, tuple(stored.heads), network, tuple(stored.calibration))
    if stored.novelty is not None:
        with _explain_faults(folder / _NOVELTY) as path:
            novelty = make_novelty(stored.novelty, read_arrays(path, list_sizes(stored.novelty)))
            model = dataclasses.replace(model, novelty=novelty)
            model.check_stages()
    return model, stored


def load_images(folder: Path) -> np.ndarray:
    """Returns the raw training images of a model directory, float32 [count, *input.shape].

    Raises DataError if the file is missing, damaged or empty, or if the model takes no such images.
    """
    sides = _load_stored(folder).input.shape
    with _explain_faults(folder / _IMAGES) as path:
        images = read_array(path)
        if images.ndim != len(sides) + 1 or not len(images) or not _fits(images.shape[1:], sides):
            raise ValueError(f"it holds {list(images.shape)}; the model takes [count >= 1, {str(sides)[1:-1]}]")
        return images.astype(np.float32)


def load_targets(folder: Path) -> dict[str, np.ndarray]:
    """Returns the targets of the images of a model directory by head, [count, …]; empty if they are not known.

    Raises DataError if the file is damaged, or holds something else than the heads' targets of these images.
    """
    if not (folder / _TARGETS).exists():
        return {}
    heads = {head.name: head for head in _load_stored(folder).heads}
    with _explain_faults(folder / _IMAGES) as path:
        count, *sides, _ = read_array(path).shape
    with _explain_faults(folder / _TARGETS) as path:
        # No head has more entries than it has for an example without a target.
        sizes = {
            name: count * head.missing_target(sides if head.per_position else ()).size for name, head in heads.items()
        }
        targets = read_arrays(path, sizes)
        if wrong := [name for name, values in targets.items() if len(values) != count]:
            raise ValueError(f"it has {len(targets[wrong[0]])} targets of {wrong[0]} for {count} images")
        return targets


def _load_stored(folder: Path) -> StoredModel:
    """Returns the content of model.json; loads the installed extensions, whose classes it may name."""
    load_installed()
    with _explain_faults(folder / _MODEL) as path:
        return convert_record(msgspec.json.decode(path.read_bytes()), StoredModel)


def _fits(shape: Sequence[int], sides: Sequence[int | None]) -> bool:
    return all(side in (None, actual) for actual, side in zip(shape, sides, strict=True))


@contextmanager
def _explain_faults(path: Path) -> Iterator[Path]:
    """Turns every fault of reading a file into DataError: a damaged one can fail anywhere in the libraries behind."""
    try:
        yield path
    except ProbrtError:
        raise
    except FileNotFoundError:
        if steps := sorted(path.parent.glob("checkpoints/*.npz")):
            raise DataError(
                f"{path.parent}: its training stopped after step {int(steps[-1].stem)}; go on with probrt train CONFIG "
                f"--out {path.parent} --resume"
            ) from None
        raise DataError(
            f"{path.parent}: no model here ({path.name} is missing); make one with `probrt train`"
        ) from None
    except Exception as error:
        if unknown := find_unknown_tag(error):
            raise DataError(
                f"{path.parent}: nothing here defines the {unknown.kind} {unknown.tag!r}; install the package that "
                "does, or import the module first"
            ) from None
        raise DataError(f"{path}: the model is damaged ({one_line(error)[:300]}); train it again") from None
