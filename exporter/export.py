"""From a model directory to a published bundle."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from probrt.exporter import parity
from probrt.exporter.bank import Chosen, chosen
from probrt.exporter.ensemble import Ensemble, ensemble
from probrt.exporter.files import BundleWriter, expected_bytes
from probrt.exporter.formats import BY_PRECISION, FORMATS, VARIANTS, graph_files
from probrt.exporter.publish import next_version, stage_version
from probrt.exporter.reference import Reference
from probrt.exporter.task_metrics import Task
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import (
    MODEL_NAME,
    NAME,
    Combine,
    HeadRecord,
    Kind,
    Manifest,
    ModelRecord,
    PosteriorRecord,
    Provenance,
    encode,
)
from probrt.runtime.bundle.signing import sign
from probrt.runtime.bundle.vetting import saved_model_ops
from probrt.runtime.errors import ParityError, UsageError
from probrt.trainer import store
from probrt.trainer.model import Model

CHUNK = 8
DRAWS = 32
MAX_SAMPLES = 1024
_REPRESENTATIVE = 64
_TASK = 256
_MUCH = 1e9
_GRAPH = "saved_model.pb"
_PACKAGES = ("tensorflow", "keras", "tensorflow-probability", "tf2onnx", "onnx", "numpy")


@dataclass(frozen=True)
class ExportRequest:
    """What to export: `draws` in the bank, a multiple of CHUNK, its seed, which files, and auxiliary heads or not.

    draws: None is DRAWS, or of an ensemble without random weights one per member.
    key: the private key to sign the bundle with. formats: None is all of them, if they come to less than a gigabyte.
    members: directories of further models that make an ensemble with the first. name: None is the (first) model's.
    """

    draws: int | None = None
    seed: int = 0
    version: int | None = None
    formats: tuple[str, ...] | None = None
    precisions: tuple[str, ...] = ("float32",)
    variants: tuple[str, ...] = VARIANTS
    select: bool = True
    auxiliary: bool = False
    key: Path | None = None
    members: tuple[Path, ...] = ()
    name: str | None = None


@dataclass(frozen=True)
class Exported:
    """A published bundle and how its files were found to differ from the model."""

    bundle: Bundle
    differences: tuple[parity.Difference, ...]


def export(
    folder: Path,
    artifacts: Path,
    request: ExportRequest,
    doing: Callable[[str], None] = lambda step: None,
    checked: Callable[[parity.Difference], None] = lambda difference: None,
) -> Exported:
    """Publishes the next version of a model directory's bundle under `artifacts/<name>/`.

    doing: told of each step; checked: of each file's check. Raises ParityError, and publishes nothing,
    if any file says something else than the model.
    """
    model, training = _loaded(folder, request)
    draws = _draws(model, request)
    home = artifacts / model.name
    version = request.version or next_version(home)
    formats = request.formats or FORMATS
    graphs = graph_files(formats, request.precisions, request.variants, variants(model))
    expected = expected_bytes(model, graphs, draws)
    if request.formats is None and expected > _MUCH:
        raise UsageError(
            f"{folder}: about {expected / 1e9:.1f} GB with {draws} draws in every format; "
            f"name those you need with --formats {','.join(FORMATS)}, or lower --draws"
        )
    kept = store.load_images(folder)
    low, high = model.input.range or (0.0, 1.0)
    doing(f"choosing the draws of the bank; about {expected / 1e6:.0f} MB to write")
    posterior = _posterior(model, kept, request, draws)
    with stage_version(home, version) as stage:
        representative = parity.checking_images(kept, low, high, _REPRESENTATIVE)
        writer = BundleWriter(model, heads(model), posterior, representative, stage, doing)
        files = writer.saved_model() if "savedmodel" in formats else []
        files += writer.graphs(graphs)
        manifest = Manifest(
            probrt=importlib.metadata.version("probrt"),
            model=ModelRecord(name=model.name, version=version),
            input=model.input,
            heads=list(writer.heads),
            files=files,
            posterior=posterior,
            calibration=list(model.calibration),
            ops=saved_model_ops((stage / _GRAPH).read_bytes()) if (stage / _GRAPH).exists() else None,
            provenance=Provenance(training=training, export=_provenance(request, draws)),
        )
        (stage / NAME).write_bytes(encode(manifest))
        doing("checking every file against the model")
        found = []
        images = parity.checking_images(kept, low, high)
        targets = {name: values[:_TASK] for name, values in store.load_targets(folder).items()}
        task = Task(kept[:_TASK], targets)
        for difference in parity.differences(Bundle.open(stage), Reference(model, manifest.heads), images, task):
            checked(difference)
            found.append(difference)
        faults = [f"{one.file}: {fault}" for one in found for fault in one.faults]
        if faults:
            raise ParityError(f"{folder}: {faults[0]} ({len(faults)} in all); nothing was published")
        rows = [row for one in found for row in (*one.outputs, *one.task)]
        (stage / NAME).write_bytes(encode(msgspec.structs.replace(manifest, parity=rows)))
        if request.key is not None:
            doing("signing")
            sign(stage, request.key)
    return Exported(Bundle.open(home / str(version)), tuple(found))


def heads(model: Model | Ensemble) -> list[HeadRecord]:
    """The heads as the manifest states them."""
    return [
        HeadRecord(
            name=head.name,
            likelihood=type(head).__struct_config__.tag,
            kind=_kind(head.combine, head.outputs(model.positions(head))),
            combine=head.combine,
            per_position=head.per_position,
            labels=list(head.names),
            unit=getattr(head, "unit", ""),
            outputs=head.outputs(model.positions(head)),
            edges=getattr(head, "edges", []),
        )
        for head in model.heads
    ]


def _kind(combine: Combine, outputs: Mapping[str, Sequence[int | None]]) -> Kind:
    """Returns the kind of a head from how its draws combine and from the shapes of its outputs."""
    if combine == "variance":
        return "real"
    return "class" if len(outputs["mean"]) > len(outputs["aleatoric"]) else "binary"


def variants(model: Model | Ensemble) -> tuple[str, ...]:
    """The variants that a model has: only one model, of families whose draws can be made in a graph, has `sampled`."""
    if len(model.members) > 1:
        return ("mean", "draws")
    if not model.weights:
        return ("mean",)
    return VARIANTS if all(weight.posterior.in_graph for weight in model.weights) else ("mean", "draws")


def _loaded(folder: Path, request: ExportRequest) -> tuple[Model | Ensemble, dict[str, Any]]:
    """The model, or the ensemble, and where it comes from."""
    if request.name is not None and not re.fullmatch(MODEL_NAME, request.name):
        raise UsageError(
            f"--name {request.name!r}: letters, digits, '_', '-' and '.', beginning with a letter or digit"
        )
    found, cards = zip(*(store.load_model(one) for one in (folder, *request.members)), strict=True)
    models = [one if request.auxiliary else one.without_auxiliary() for one in found]
    if not request.members:
        return dataclasses.replace(models[0], name=request.name or models[0].name), cards[0].provenance
    coarse = [name for name in request.precisions if not BY_PRECISION[name].whole]
    if coarse:
        raise UsageError(f"--precisions {coarse[0]}: not for an ensemble; choose from float32, float16")
    folders = (folder, *request.members)
    joined = ensemble(request.name or "", folders, models, [heads(model) for model in models])
    members = [{"name": card.name, "calibration": card.calibration, "provenance": card.provenance} for card in cards]
    return joined, {"members": members}


def _draws(model: Model | Ensemble, request: ExportRequest) -> int:
    """How many draws the bank has; UsageError for a number that an ensemble without random weights cannot have."""
    if model.weights or len(model.members) == 1:
        return request.draws or DRAWS
    count = len(model.members)
    if request.draws not in (None, count):
        raise UsageError(
            f"--draws {request.draws}: an ensemble without random weights has {count} draws, one per member; "
            "leave --draws out"
        )
    return count


def _posterior(model: Model | Ensemble, kept: np.ndarray, request: ExportRequest, draws: int) -> PosteriorRecord | None:
    if not model.weights and len(model.members) == 1:
        return None
    bank = Chosen(list(range(draws)), None)
    wanted = {"savedmodel", "draws"} & {*(request.formats or FORMATS), *request.variants}
    if request.select and wanted and model.weights:
        bank = chosen(model, heads(model), kept, request.seed, draws, CHUNK)
    return PosteriorRecord(
        seed=request.seed,
        order=bank.order,
        chunk=CHUNK if model.weights else draws,
        samples=draws,
        max_samples=MAX_SAMPLES if model.weights else draws,
        selection=bank.selection,
    )


def _provenance(request: ExportRequest, draws: int) -> dict[str, object]:
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"draws": draws, "seed": request.seed, "versions": versions}
