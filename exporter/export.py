"""From a model directory to a published bundle."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from probrt.exporter.bank import Bank, choose_bank
from probrt.exporter.bank_tuning import tune_bank
from probrt.exporter.draft import Draft
from probrt.exporter.effective import measure_effective_draws
from probrt.exporter.exportable import Exportable
from probrt.exporter.int8_files import Int8Files, list_layer_names
from probrt.exporter.parity import Difference, compare_files, make_checking_images
from probrt.exporter.plan import ExportPlan, ExportRequest, plan_export
from probrt.exporter.records import CHUNK, make_head_records, make_posterior_record
from probrt.exporter.reference import Reference
from probrt.exporter.steps import Steps, estimate_cost
from probrt.exporter.task_metrics import TaskExamples
from probrt.runtime.bundle.answers import Answers, encode_answers, make_grids
from probrt.runtime.bundle.arrays import enlarge, store_array
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import ANSWERS, NAME, DocumentRecord, Tuning
from probrt.runtime.bundle.manifest_file import encode
from probrt.runtime.bundle.publish import next_version, stage_version
from probrt.runtime.bundle.signing import sign
from probrt.runtime.errors import ParityError, UsageError
from probrt.runtime.predict.trial import trust_files
from probrt.trainer import store

# How many training images int8 is fitted to, and how many the task's metrics are computed on.
_REPRESENTATIVE_IMAGES = 64
_TASK_IMAGES = 256


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
    images, targets = store.load_images(folder), store.load_targets(folder)
    steps = _plan_steps(plan, on_step)
    grids = _make_grids(plan.model, images)
    differences: list[Difference] = []

    def check(bundle: Bundle) -> None:
        """Checks the files that have not been checked."""
        done = {difference.file for difference in differences}
        for difference in _compare_files(plan, images, targets, bundle, grids, done):
            on_check(difference)
            differences.append(difference)
            steps.begin(f"checked {difference.label}", "check signature" if difference.signature else "check")
        _refuse_faults(folder, differences, bundle)

    representative = _make_checking_images(plan.model, images, _REPRESENTATIVE_IMAGES)
    with stage_version(home, request.version) as stage:
        int8_files = Int8Files(representative, _make_checking_images(plan.model, images), list_layer_names(plan.model))
        draft = Draft(stage.folder, request.version or next_version(home), representative, int8_files, steps)
        # They need no bank: a precision that the model does not bear is refused before the long steps.
        means = [graph for graph in plan.graphs if graph.variant == "mean"]
        files = draft.make_writer(plan, None).write_graphs(means)
        if files:
            draft.write_manifest(plan, None, files)
            check(Bundle.open(stage.folder))
        if plan.chooses_bank:
            steps.begin(f"choosing the draws of the bank; about {plan.bytes / 1e6:.0f} MB to write", "bank")
        bank = _choose_bank(plan, images)
        plan, tuning = _tune_bank(plan, bank, images, steps)
        posterior = make_posterior_record(plan.model, bank, plan.request.seed, plan.draws, tuning)
        writer = draft.make_writer(plan, posterior)
        saved_model = writer.write_saved_model() if "savedmodel" in plan.formats else []
        files = [*saved_model, *files, *writer.write_graphs([graph for graph in plan.graphs if graph not in means])]
        if not files:
            raise UsageError(f"{folder}: no layer can be in int8, so there is no file to write; add to --precisions")
        manifest = draft.write_manifest(plan, posterior, files)
        steps.begin("checking every file against the model", "check")
        check(Bundle.open(stage.folder))
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
    total = estimate_cost(
        plan.graphs,
        math.ceil(plan.draws / (plan.model.max_draws or CHUNK)),
        copies=len(plan.model.members) == 1,
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


def _compare_files(
    plan: ExportPlan,
    images: npt.NDArray[Any],
    targets: Mapping[str, npt.NDArray[Any]],
    bundle: Bundle,
    grids: npt.NDArray[np.float32],
    done: Collection[str],
) -> Iterator[Difference]:
    """Compares the files not in `done` with the model, on real images and noise; coarser ones on the task too."""
    task = TaskExamples(images[:_TASK_IMAGES], {name: values[:_TASK_IMAGES] for name, values in targets.items()})
    reference = Reference(plan.model, bundle.manifest.heads)
    stored_images = enlarge(grids, images.shape[1:])
    return compare_files(bundle, reference, _make_checking_images(plan.model, images), task, stored_images, done)


def _refuse_faults(folder: Path, differences: Sequence[Difference], bundle: Bundle) -> None:
    """Raises ParityError if any file has a fault; it says which precisions to leave out if that is enough."""
    faults = [f"{difference.label}: {fault}" for difference in differences for fault in difference.faults]
    if not faults:
        return
    faulty = {difference.file for difference in differences if difference.faults}
    precisions = {file.precision for file in bundle.manifest.files if file.path in faulty}
    leave = "" if "float32" in precisions else f"; leave {' and '.join(sorted(precisions))} out of --precisions"
    raise ParityError(f"{folder}: {faults[0]} ({len(faults)} in all); nothing was published{leave}")


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
