"""From a model directory to a published bundle."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from probrt.exporter.bank import Bank, choose_bank
from probrt.exporter.bank_tuning import tune_bank
from probrt.exporter.bundle_writer import BundleWriter
from probrt.exporter.effective import measure_effective_draws
from probrt.exporter.exportable import Exportable
from probrt.exporter.parity import Difference, compare_files, make_checking_images
from probrt.exporter.plan import ExportPlan, ExportRequest, plan_export
from probrt.exporter.records import CHUNK, make_head_records, make_novelty_record, make_posterior_record
from probrt.exporter.reference import Reference
from probrt.exporter.sbom import write_sbom
from probrt.exporter.steps import Steps, estimate_cost
from probrt.exporter.task_metrics import TaskExamples
from probrt.runtime.bundle.answers import Answers, encode_answers, make_grids
from probrt.runtime.bundle.arrays import enlarge, store_array
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import (
    ANSWERS,
    NAME,
    DocumentRecord,
    Manifest,
    ModelRecord,
    PosteriorRecord,
    Provenance,
    Tuning,
)
from probrt.runtime.bundle.manifest_file import encode
from probrt.runtime.bundle.publish import next_version, stage_version
from probrt.runtime.bundle.signing import sign
from probrt.runtime.bundle.vet_saved_model import saved_model_ops
from probrt.runtime.errors import ParityError, UsageError
from probrt.runtime.predict.trial import trust_files
from probrt.trainer import store

# How many training images int8 is fitted to, and how many the task's metrics are computed on.
_REPRESENTATIVE_IMAGES = 64
_TASK_IMAGES = 256
_SAVED_MODEL = "saved_model.pb"
_PACKAGES = ("tensorflow", "keras", "tensorflow-probability", "tf2onnx", "onnx", "numpy")


_USUAL = ExportRequest()


@dataclass(frozen=True)
class ExportResult:
    """A published bundle, and how each of its files differs from the model."""

    bundle: Bundle
    differences: tuple[Difference, ...]


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
    if plan.chooses_bank:
        steps.begin(f"choosing the draws of the bank; about {plan.bytes / 1e6:.0f} MB to write", "bank")
    bank = _choose_bank(plan, images)
    plan, tuning = _tune_bank(plan, bank, images, steps)
    posterior = make_posterior_record(plan.model, bank, plan.request.seed, plan.draws, tuning)
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
            effective = measure_effective_draws(plan.model, bank.yardstick, Bundle.open(stage.folder), posterior)
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


def _plan_steps(plan: ExportPlan, on_step: Callable[[str, float], None]) -> Steps:
    """Returns the steps of an export, none of them begun."""
    chunk = plan.model.max_draws or CHUNK
    total = estimate_cost(
        plan.graphs,
        plan.draws,
        chunk,
        saved_model="savedmodel" in plan.formats,
        bank=plan.chooses_bank,
        tuning=plan.tunes_bank,
    )
    return Steps(total, on_step)


def _choose_bank(plan: ExportPlan, images: npt.NDArray[Any]) -> Bank:
    """Chooses the draws of the bank; those of the plain order where there is nothing to choose."""
    if not plan.chooses_bank:
        return Bank(list(range(plan.draws)), None)
    return choose_bank(plan.model, make_head_records(plan.model), images, plan.request.seed, plan.draws, CHUNK)


def _tune_bank(
    plan: ExportPlan, bank: Bank, images: npt.NDArray[Any], steps: Steps
) -> tuple[ExportPlan, Tuning | None]:
    """Tunes the bank's first draws; returns the plan of the model that gives them, and what the manifest says of it."""
    if not plan.tunes_bank:
        return plan, None
    steps.begin("tuning the first draws of the bank", "tuning")
    tuned = tune_bank(plan.model, make_head_records(plan.model), images, bank, plan.request.seed, CHUNK)
    if tuned.draws is None:
        return plan, tuned.record
    model = dataclasses.replace(plan.model, tuned=tuned.draws)  # type: ignore[type-var]  # no ensemble has tuned draws
    return dataclasses.replace(plan, model=model), tuned.record


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
    if not files:
        raise UsageError(f"{model.name}: no layer can be in int8, so there is no file to write; add to --precisions")
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
        provenance=Provenance(training=plan.training, export=_make_provenance(plan, writer)),
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


def _make_provenance(plan: ExportPlan, writer: BundleWriter) -> dict[str, object]:
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    layers = writer.int8_files.describe()
    provenance: dict[str, object] = {"draws": plan.draws, "seed": plan.request.seed, "versions": versions}
    return provenance | ({"int8_layers": layers} if layers else {})
