"""From a model directory to a published bundle."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from probrt.exporter.bank import Bank, choose_bank
from probrt.exporter.bundle_writer import BundleWriter, estimate_bytes
from probrt.exporter.effective import measure_effective_draws
from probrt.exporter.ensemble import make_ensemble
from probrt.exporter.exportable import Exportable
from probrt.exporter.formats import BY_PRECISION, FORMATS, VARIANTS, GraphSpec, select_graphs
from probrt.exporter.parity import Difference, compare_files, make_checking_images
from probrt.exporter.reference import Reference
from probrt.exporter.sbom import write_sbom
from probrt.exporter.steps import Steps, estimate_cost
from probrt.exporter.task_metrics import TaskExamples
from probrt.runtime.bundle.answers import Answers, encode_answers, make_grids
from probrt.runtime.bundle.arrays import enlarge, store_array
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import (
    ANSWERS,
    MODEL_NAME,
    NAME,
    DocumentRecord,
    Format,
    HeadRecord,
    Manifest,
    ModelRecord,
    NoveltyRecord,
    PosteriorRecord,
    Precision,
    Provenance,
    Variant,
)
from probrt.runtime.bundle.manifest_file import encode
from probrt.runtime.bundle.publish import next_version, stage_version
from probrt.runtime.bundle.signing import check_signing_key, sign
from probrt.runtime.bundle.vet_saved_model import saved_model_ops
from probrt.runtime.errors import ParityError, UsageError
from probrt.runtime.predict.trial import trust_files
from probrt.trainer import store
from probrt.trainer.novelty.fit import METHOD

CHUNK = 8
DRAWS = 32
MAX_SAMPLES = 1024
# How many training images int8 is fitted to, and how many the task's metrics are computed on.
_REPRESENTATIVE_IMAGES = 64
_TASK_IMAGES = 256
# More bytes than this are written only if the formats are named.
_MAX_BYTES = 1e9
_SAVED_MODEL = "saved_model.pb"
_PACKAGES = ("tensorflow", "keras", "tensorflow-probability", "tf2onnx", "onnx", "numpy")


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What to export.

    draws: in the bank, a multiple of CHUNK; None is DRAWS, or one per member of an ensemble without random weights.
    seed: the bundle's own. version: None is the next.
    formats: None is all of them, unless that comes to more than a gigabyte.
    select: whether to choose the bank's draws; otherwise they are 0, 1, 2, …
    auxiliary: whether to keep the auxiliary heads.
    key: the private key to sign the bundle with.
    members: directories of further models that make an ensemble with the first.
    name: the bundle's; None is the (first) model's.
    """

    draws: int | None = None
    seed: int = 0
    version: int | None = None
    formats: tuple[Format, ...] | None = None
    precisions: tuple[Precision, ...] = ("float32",)
    variants: tuple[Variant, ...] = VARIANTS
    select: bool = True
    auxiliary: bool = False
    key: Path | None = None
    members: tuple[Path, ...] = ()
    name: str | None = None


_USUAL = ExportRequest()


@dataclass(frozen=True)
class ExportResult:
    """A published bundle, and how each of its files differs from the model."""

    bundle: Bundle
    differences: tuple[Difference, ...]


@dataclass(frozen=True, kw_only=True)
class ExportPlan:
    """What a request means for one model, decided before anything is computed or written.

    training: the manifest's provenance of the model. bytes: about how many will be written.
    """

    request: ExportRequest
    model: Exportable
    training: dict[str, Any]
    formats: tuple[Format, ...]
    graphs: list[GraphSpec]
    draws: int
    bytes: int


def export(
    folder: Path,
    artifacts: Path,
    request: ExportRequest = _USUAL,
    on_step: Callable[[str, float], None] = lambda step, share: None,
    on_check: Callable[[Difference], None] = lambda difference: None,
) -> ExportResult:
    """Publishes the next version of a model directory's bundle under `artifacts/<name>/`.

    on_step: is called with each step, in words, and the share of the whole that is done. on_check: is called with the
    result of each file's check.
    Raises ParityError, and publishes nothing, if any file differs from the model.
    """
    plan = plan_export(folder, request)
    home = artifacts / plan.model.name
    images = store.load_images(folder)
    steps = _plan_steps(plan, on_step)
    if _chooses_bank(plan):
        steps.begin(f"choosing the draws of the bank; about {plan.bytes / 1e6:.0f} MB to write", "bank")
    bank = _choose_bank(plan, images)
    posterior = _make_posterior(plan, bank)
    with stage_version(home, request.version) as stage:
        expected_version = request.version or next_version(home)
        manifest = _write_files(plan, expected_version, posterior, images, stage.folder, steps)
        steps.begin("checking every file against the model", "check")
        differences = []
        grids = _make_grids(plan.model, images)
        for difference in _compare_files(plan, images, store.load_targets(folder), Bundle.open(stage.folder), grids):
            on_check(difference)
            differences.append(difference)
            steps.begin(f"checked {difference.label}", "check signature" if difference.signature else "check")
        faults = [f"{difference.label}: {fault}" for difference in differences for fault in difference.faults]
        if faults:
            raise ParityError(f"{folder}: {faults[0]} ({len(faults)} in all); nothing was published")
        if bank.yardstick is not None and posterior is not None:
            effective = measure_effective_draws(bank.yardstick, Bundle.open(stage.folder), posterior)
            posterior = msgspec.structs.replace(posterior, effective=effective)
        records = [record for difference in differences for record in (*difference.outputs, *difference.task)]
        stored = _write_answers(stage.folder, images.shape[1:], grids, differences)
        manifest = msgspec.structs.replace(
            manifest, posterior=posterior, parity=records, documents=[*manifest.documents, stored]
        )

        def complete(version: int) -> None:
            model = msgspec.structs.replace(manifest.model, version=version)
            (stage.folder / NAME).write_bytes(encode(msgspec.structs.replace(manifest, model=model)))
            if request.key is not None:
                steps.begin("signing", "finish")
                sign(stage.folder, request.key)

        bundle = Bundle.open(stage.publish(complete))
    trust_files(bundle)  # the check has just run each of them
    return ExportResult(bundle, tuple(differences))


def plan_export(folder: Path, request: ExportRequest) -> ExportPlan:
    """Loads the model and decides what to write; UsageError for what the model does not have, and for too much."""
    if request.key is not None:
        check_signing_key(request.key)
    model, training = _load_model(folder, request)
    draws = _count_draws(model, request)
    formats = request.formats or FORMATS
    graphs = select_graphs(formats, request.precisions, request.variants, available_variants(model))
    size = estimate_bytes(model, graphs, draws)
    if request.formats is None and size > _MAX_BYTES:
        raise UsageError(
            f"{folder}: about {size / 1e9:.1f} GB with {draws} draws in every format; "
            f"name those you need with --formats {','.join(FORMATS)}, or lower --draws"
        )
    return ExportPlan(
        request=request, model=model, training=training, formats=formats, graphs=graphs, draws=draws, bytes=size
    )


def make_head_records(model: Exportable) -> list[HeadRecord]:
    """Returns the heads as the manifest states them."""
    return [head.to_record(model.positions(head)) for head in model.heads]


def make_novelty_record(model: Exportable) -> NoveltyRecord | None:
    """Returns how the graphs compute novelty, as the manifest states it; None if they do not."""
    if model.novelty is None:
        return None
    return NoveltyRecord(
        images=len(model.novelty.scores),
        fitted=model.novelty.fitted,
        method=METHOD,
        stages=[str(ref) for ref in model.novelty.stages],
    )


def available_variants(model: Exportable) -> tuple[Variant, ...]:
    """The variants that a model has; only random weights whose draws a graph can make have `sampled`."""
    if model.max_draws == 1:
        return ("mean",)
    return VARIANTS if model.draws_in_graph else ("mean", "draws")


def _load_model(folder: Path, request: ExportRequest) -> tuple[Exportable, dict[str, Any]]:
    """Loads the model, or the ensemble, and its provenance."""
    if request.name is not None and not re.fullmatch(MODEL_NAME, request.name):
        raise UsageError(
            f"--name {request.name!r}: letters, digits, '_', '-' and '.', beginning with a letter or digit"
        )
    folders = (folder, *request.members)
    models, stored = zip(*(store.load_model(member) for member in folders), strict=True)
    if not request.auxiliary:
        models = tuple(model.without_auxiliary() for model in models)
    if not request.members:
        return dataclasses.replace(models[0], name=request.name or models[0].name), stored[0].provenance
    coarse = [precision for precision in request.precisions if not BY_PRECISION[precision].whole_graph]
    if coarse:
        raise UsageError(f"--precisions {coarse[0]}: not for an ensemble; choose from float32, float16")
    ensemble = make_ensemble(request.name or "", folders, models, [make_head_records(model) for model in models])
    members = [
        {"name": member.name, "calibration": member.calibration, "provenance": member.provenance} for member in stored
    ]
    return ensemble, {"members": members}


def _count_draws(model: Exportable, request: ExportRequest) -> int:
    """Returns how many draws the bank has; UsageError for a number that the members of an ensemble do not have."""
    count = model.max_draws
    if count is None or count == 1:
        return request.draws or DRAWS
    if request.draws not in (None, count):
        raise UsageError(
            f"--draws {request.draws}: an ensemble without random weights has {count} draws, one per member; "
            "leave --draws out"
        )
    return count


def _plan_steps(plan: ExportPlan, on_step: Callable[[str, float], None]) -> Steps:
    """Returns the steps of an export, none of them begun."""
    chunk = plan.model.max_draws or CHUNK
    total = estimate_cost(
        plan.graphs, plan.draws, chunk, saved_model="savedmodel" in plan.formats, bank=_chooses_bank(plan)
    )
    return Steps(total, on_step)


def _chooses_bank(plan: ExportPlan) -> bool:
    """Whether the draws of the bank are chosen; otherwise they are in plain order."""
    has_bank = "savedmodel" in plan.formats or "draws" in plan.request.variants
    return plan.request.select and has_bank and plan.model.max_draws is None


def _choose_bank(plan: ExportPlan, images: npt.NDArray[Any]) -> Bank:
    """Chooses the draws of the bank; those of the plain order where there is nothing to choose."""
    if not _chooses_bank(plan):
        return Bank(list(range(plan.draws)), None)
    return choose_bank(plan.model, make_head_records(plan.model), images, plan.request.seed, plan.draws, CHUNK)


def _make_posterior(plan: ExportPlan, bank: Bank) -> PosteriorRecord | None:
    """Returns the manifest's record of the draws; None for a model with one draw only."""
    model = plan.model
    if model.max_draws == 1:
        return None
    return PosteriorRecord(
        seed=plan.request.seed,
        order=bank.order,
        chunk=model.max_draws or CHUNK,
        samples=plan.draws,
        max_samples=model.max_draws or MAX_SAMPLES,
        selection=bank.selection,
    )


def _write_files(
    plan: ExportPlan,
    version: int,
    posterior: PosteriorRecord | None,
    images: npt.NDArray[Any],
    stage: Path,
    steps: Steps,
) -> Manifest:
    """Writes every file and a manifest without parity records, which has what the check needs to open the bundle."""
    model, heads = plan.model, make_head_records(plan.model)
    writer = BundleWriter(
        model=model,
        heads=heads,
        posterior=posterior,
        images=_make_checking_images(model, images, _REPRESENTATIVE_IMAGES),
        folder=stage,
        steps=steps,
    )
    files = writer.write_saved_model() if "savedmodel" in plan.formats else []
    files += writer.write_graphs(plan.graphs)
    graph = stage / _SAVED_MODEL
    manifest = Manifest(
        probrt=importlib.metadata.version("probrt"),
        model=ModelRecord(name=model.name, version=version),
        input=model.input,
        heads=heads,
        files=files,
        posterior=posterior,
        calibration=list(model.calibration),
        novelty=make_novelty_record(model),
        ops=saved_model_ops(graph.read_bytes()) if graph.exists() else None,
        documents=[write_sbom(stage, model.name, plan.training)],
        provenance=Provenance(training=plan.training, export=_make_provenance(plan)),
    )
    (stage / NAME).write_bytes(encode(manifest))
    return manifest


def _compare_files(
    plan: ExportPlan,
    images: npt.NDArray[Any],
    targets: Mapping[str, npt.NDArray[Any]],
    bundle: Bundle,
    grids: npt.NDArray[np.float32],
) -> Iterator[Difference]:
    """Compares every file with the model, on real images and noise; coarser files also on the task."""
    task = TaskExamples(images[:_TASK_IMAGES], {name: values[:_TASK_IMAGES] for name, values in targets.items()})
    reference = Reference(plan.model, bundle.manifest.heads)
    stored_images = enlarge(grids, images.shape[1:])
    return compare_files(bundle, reference, _make_checking_images(plan.model, images), task, stored_images)


def _make_grids(model: Exportable, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Returns the images that the bundle stores with the answers to them, of the size of the training images."""
    return make_grids(images.shape[1:], *(model.input.range or (0.0, 1.0)))


def _write_answers(
    stage: Path, shape: Sequence[int], grids: npt.NDArray[np.float32], differences: Sequence[Difference]
) -> DocumentRecord:
    """Writes the answers of every file to the stored images, and returns their record."""
    calls = [answer for difference in differences for answer in difference.stored]
    content = encode_answers(Answers(shape=list(shape), grids=store_array(grids), calls=calls))
    (stage / ANSWERS).write_bytes(content)
    return DocumentRecord(path=ANSWERS, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def _make_checking_images(model: Exportable, images: npt.NDArray[Any], count: int = 16) -> npt.NDArray[np.float32]:
    low, high = model.input.range or (0.0, 1.0)
    return make_checking_images(images, low, high, count)


def _make_provenance(plan: ExportPlan) -> dict[str, object]:
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"draws": plan.draws, "seed": plan.request.seed, "versions": versions}
