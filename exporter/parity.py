"""The parity gate: compares every file with the model under the same handler before anything is published."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from probrt.exporter.file_answers import (
    SAVED_MODEL,
    FileAnswer,
    Inputs,
    concatenate,
    load_graph,
    run_calls,
    run_signature,
)
from probrt.exporter.formats import BY_PRECISION, PrecisionSpec
from probrt.exporter.novelty_parity import compare_novelty
from probrt.exporter.picture_forms import encode_forms
from probrt.exporter.ranking import compute_ranking
from probrt.exporter.reference import NamedArrays, Reference
from probrt.exporter.signatures import is_encodable
from probrt.exporter.spread import check_spread
from probrt.exporter.task_metrics import TaskExamples
from probrt.runtime.bundle.answers import CallAnswer
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import NOVELTY, FileRecord, HeadRecord, ParityRecord, PosteriorRecord, Variant
from probrt.runtime.errors import ProbrtError, one_line
from probrt.runtime.images.decode import read_image
from probrt.runtime.images.png import encode_png

# Rounding of a difference of two entropies in float32, as a part of the largest value or of 1.
_ROUNDING = 1e-6
# A seed and a number of draws that are not the bundle's own.
_OTHER_SEED = 11
_OTHER_DRAWS = 5


@dataclass(frozen=True)
class Difference:
    """How one file, or one signature of the SavedModel, differs from the model.

    outputs: the manifest's records, one per output. task: of a coarser file, one per metric.
    faults: what is wrong, in words; empty if nothing is. milliseconds: per image, in the run that was compared.
    stored: its answers to the images that the bundle stores.
    """

    file: str
    signature: str = ""
    outputs: tuple[ParityRecord, ...] = ()
    task: tuple[ParityRecord, ...] = ()
    faults: tuple[str, ...] = ()
    milliseconds: float = 0.0
    stored: tuple[CallAnswer, ...] = ()

    @property
    def label(self) -> str:
        """The file, and the signature if it has several."""
        return f"{self.file} {self.signature}".strip()


def compare_files(
    bundle: Bundle,
    reference: Reference,
    images: npt.NDArray[np.float32],
    task: TaskExamples,
    stored_images: npt.NDArray[np.float32],
    done: Collection[str] = (),
) -> Iterator[Difference]:
    """Compares every file of an unpublished bundle with the model, coarser ones also by how well they do the task.

    images: raw, [count, *input.shape]; stored_images: those whose answers the bundle stores. done: files to leave out.
    Raises ParityError if the model's shared features disagree with its network, because every file is made from them.
    """
    posterior = bundle.manifest.posterior
    reference.check_shared_features(images, posterior.seed if posterior else None)

    @functools.cache
    def expect(variant: Variant, draws: tuple[int, int] | None) -> tuple[list[Inputs], NamedArrays]:
        """Returns the calls of a file, and the model's answer to them."""
        if posterior is not None and variant == "sampled":
            return _make_sampled_calls(reference, posterior, images)
        return [{"images": images}], _evaluate_reference(reference, posterior, images, draws)

    @functools.lru_cache(maxsize=1)  # the files of one graph follow each other, and maps take much memory
    def expect_task(draws: tuple[int, int] | None) -> NamedArrays:
        """Returns the model's answer to the images of the task."""
        return concatenate([_evaluate_reference(reference, posterior, batch, draws) for batch in task.batches()])

    for file in bundle.manifest.files:
        if file.format == "savedmodel" or file.path in done:
            continue
        calls, expected = expect(file.variant, file.draws)
        run = functools.partial(run_calls, bundle, file, calls, stored_images)
        difference = _compare(file.path, "", run, expected, BY_PRECISION[file.precision], reference)
        has_task = file.precision != "float32" and task.targets and not difference.faults
        yield _add_task(difference, bundle, file, reference, task, expect_task) if has_task else difference
    files = bundle.files("savedmodel")
    if files:
        graph = load_graph(bundle, files)
        for signature, inputs, expected in _signature_calls(bundle, reference, images):
            run = functools.partial(run_signature, graph, inputs, signature, stored_images)
            yield _compare(SAVED_MODEL, signature, run, expected, BY_PRECISION["float32"], reference)


def make_checking_images(
    real_images: npt.NDArray[Any], low: float, high: float, count: int = 16
) -> npt.NDArray[np.float32]:
    """Returns up to `count` real images and half as many of uniform noise over the input's range, float32."""
    real = real_images[:count].astype(np.float32)
    noise = np.random.default_rng(23).uniform(low, high, (max(1, len(real) // 2), *real.shape[1:]))
    return np.concatenate([real, noise.astype(np.float32)])


def _add_task(
    difference: Difference,
    bundle: Bundle,
    file: FileRecord,
    reference: Reference,
    task: TaskExamples,
    expect: Callable[[tuple[int, int] | None], NamedArrays],
) -> Difference:
    """Adds the metrics of the task. expect: returns the model's answer to the task's images over draws of the bank."""
    graph = load_graph(bundle, [file])
    answer = concatenate([graph({"images": images}) for images in task.batches()])
    allowed = BY_PRECISION[file.precision].task_loss
    records, faults = task.compare_metrics(reference.model.heads, file.path, answer, expect(file.draws), allowed)
    return dataclasses.replace(difference, task=tuple(records), faults=tuple(faults))


def _evaluate_reference(
    reference: Reference,
    posterior: PosteriorRecord | None,
    images: npt.NDArray[Any],
    draws: tuple[int, int] | None,
) -> NamedArrays:
    """Returns the model's answer at the posterior mean, or over the draws (first position, count) of the bank."""
    if posterior is None or draws is None:
        return reference.evaluate_mean(images)
    first, count = draws
    return reference.combine_draws(images, posterior.seed, posterior.order[first : first + count], first == 0)


def _make_sampled_calls(
    reference: Reference, posterior: PosteriorRecord, images: npt.NDArray[np.float32]
) -> tuple[list[Inputs], NamedArrays]:
    """Makes two calls of a `sampled` file, with the bundle's seed and with another one from an odd position on."""
    calls, answers = [], []
    for seed, start in ((posterior.seed, 0), (_OTHER_SEED, _OTHER_DRAWS)):
        indices = posterior.order if seed == posterior.seed else range(start + posterior.chunk)
        calls.append({"images": images, "seed": np.array([seed], np.int32), "start": np.array([start], np.int32)})
        answers.append(reference.combine_draws(images, seed, indices[start : start + posterior.chunk]))
    return calls, concatenate(answers)


def _signature_calls(
    bundle: Bundle, reference: Reference, images: npt.NDArray[np.float32]
) -> Iterator[tuple[str, Inputs, NamedArrays]]:
    """Yields each signature of the SavedModel, its inputs and the model's answer to them."""
    posterior = bundle.manifest.posterior
    yield "mean", {"images": images}, reference.evaluate_mean(images)
    if posterior is None:
        return
    bank = (0, posterior.samples)
    yield "serving_default", {"images": images}, _evaluate_reference(reference, posterior, images, bank)
    count = min(_OTHER_DRAWS, posterior.max_samples)
    options = {"num_samples": np.array([count], np.int32), "seed": np.array([_OTHER_SEED], np.int32)}
    combined = reference.combine_draws(images, _OTHER_SEED, range(count))
    yield "sample", {"images": images, **options}, combined
    draws = reference.evaluate_draws(images, _OTHER_SEED, range(count))
    names = [f"{head.name}.mean" for head in reference.heads]
    means = {name: np.stack([draw[name] for draw in draws], 1) for name in names}
    yield "draws", {"images": images, **options}, means | reference.evaluate_novelty(images)
    if is_encodable(reference.model.input):
        pixels = images.round().astype(np.uint8)
        pictures = [encode_png(image) for image in pixels] + encode_forms(pixels[0])
        decoded = np.stack([read_image(picture, reference.model.input) for picture in pictures])
        expected = _evaluate_reference(reference, posterior, decoded, bank)
        yield "encoded", {"image_bytes": np.array(pictures, object)}, expected


def _compare(
    file: str,
    signature: str,
    run: Callable[[], FileAnswer],
    expected: NamedArrays,
    precision: PrecisionSpec,
    reference: Reference,
) -> Difference:
    """Runs a file or signature and compares each output with the model's."""
    try:
        run_answer = run()
    except ProbrtError:
        raise
    except Exception as error:  # every engine has exceptions of its own
        return Difference(file, signature, faults=(f"does not run: {one_line(error)[:300]}",))
    answer = run_answer.outputs
    records, faults = [], [f"{name} is one too many" for name in sorted({*answer} - {*expected})]
    for head in sorted(reference.heads, key=lambda head: head.name):
        for quantity in sorted(head.outputs):
            if f"{head.name}.{quantity}" in expected:
                record, faults_of_output = _compare_output(file, signature, head, quantity, answer, expected, precision)
                records += [record] if record else []
                faults += faults_of_output
    if reference.model.novelty is not None and f"{NOVELTY}.score" in expected:
        novelty_records, novelty_faults = compare_novelty(
            file, signature, answer, expected, precision, reference.model.novelty
        )
        records += novelty_records
        faults += novelty_faults
    count = max(1, len(next(iter(expected.values()))))
    return Difference(
        file,
        signature,
        outputs=tuple(records),
        faults=tuple(faults),
        milliseconds=1000.0 * run_answer.seconds / count,
        stored=run_answer.stored,
    )


def _compare_output(
    file: str,
    signature: str,
    head: HeadRecord,
    quantity: str,
    answer: Mapping[str, npt.NDArray[Any]],
    expected: NamedArrays,
    precision: PrecisionSpec,
) -> tuple[ParityRecord | None, list[str]]:
    """Compares one output; there is no record where the shapes differ or a value is not finite."""
    name = f"{head.name}.{quantity}"
    if name not in answer:
        return None, [f"{name} is missing"]
    values, targets = np.asarray(answer[name], np.float64), np.asarray(expected[name], np.float64)
    if values.shape != targets.shape:
        return None, [f"{name} has shape {list(values.shape)}, the model gives {list(targets.shape)}"]
    if not np.isfinite(values).all():
        return None, [f"{name} is not finite"]
    largest = float(np.abs(targets).max())
    allowed = precision.tolerance * max(1.0, largest)
    absolute = float(np.abs(values - targets).max())
    ranking = None if quantity == "mean" else compute_ranking(values, targets)
    faults = []
    if absolute > allowed:
        faults.append(f"{name} differs by {absolute:.2g}, allowed {allowed:.2g}")
    if ranking is not None and ranking < precision.least_ranking:
        faults.append(
            f"{name} ranks the images otherwise (rank correlation {ranking:.2f}, least {precision.least_ranking:g})"
        )
    if quantity == "epistemic":
        # An entropy's rounding does not depend on the mean's size; a variance's is that of its square.
        mean = float(np.abs(expected[f"{head.name}.mean"]).max())
        rounding = (_ROUNDING * mean) ** 2 if head.kind == "real" else _ROUNDING
        faults += check_spread(name, values, targets, rounding, precision)
    record = ParityRecord(
        file=file,
        signature=signature,
        head=head.name,
        quantity=quantity,
        absolute=absolute,
        relative=absolute / max(largest, 1e-30),
        tolerance=allowed,
        ranking=ranking,
    )
    return record, faults
