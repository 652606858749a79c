"""The parity gate: every file against the model under the same reading, before anything is published."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from probrt.exporter.formats import BY_PRECISION, Kind
from probrt.exporter.reference import Outputs, Reference
from probrt.exporter.signatures import encodable
from probrt.exporter.task_metrics import Task
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import FileRecord, ParityRecord, PosteriorRecord
from probrt.runtime.engines import Graph, engines
from probrt.runtime.errors import MissingError, ProbrtError, one_line
from probrt.runtime.images.png import encode_png

Inputs = dict[str, np.ndarray]

# How far the average spread between draws may lie from the model's, as a part of it; below _SMALL, in
# the unit of the quantity, rounding alone can be that much.
_SPREAD = 0.02
_SMALL = 1e-4
# Of a difference of two entropies in float32, as a part of the largest value or of 1.
_ROUNDING = 1e-6
_OTHER_SEED = 11
_FEWER = 5
_THREADS = 2
_ENGINES = {"tflite": "litert", "onnx": "onnxruntime", "savedmodel": "tensorflow"}


@dataclass(frozen=True)
class Difference:
    """The rows of the manifest for one file (or signature), and what is wrong with it, if anything.

    task: rows of its scores, of a coarser file. milliseconds: per image, of the checking run.
    """

    file: str
    outputs: tuple[ParityRecord, ...]
    faults: tuple[str, ...]
    milliseconds: float = 0.0
    task: tuple[ParityRecord, ...] = ()


def differences(bundle: Bundle, reference: Reference, images: np.ndarray, task: Task) -> Iterator[Difference]:
    """Every file of an unpublished bundle against the model, on raw images [count, *input.shape]; coarser ones also
    by how well they do the task.
    """
    posterior = bundle.manifest.posterior
    expected_mean = reference.mean(images)
    entropies = {head.name for head in reference.heads if head.kind != "real"}

    @functools.cache
    def wanted(variant: str, draws: tuple[int, int] | None) -> tuple[list[Inputs], Outputs]:
        """The calls that a file is asked, and what the model says to them."""
        if variant == "mean":
            return [{"images": images}], expected_mean
        if variant == "draws":
            first, count = draws or (0, 0)
            indices = posterior.order[first : first + count]
            return [{"images": images}], reference.draws(images, posterior.seed, indices)
        return _asked_of_sampled(reference, posterior, images)

    for file in bundle.manifest.files:
        if file.format != "savedmodel":
            calls, expected = wanted(file.variant, file.draws)
            run = functools.partial(_answered, bundle, file, calls)
            found = _difference(file.path, "", run, expected, BY_PRECISION[file.precision], entropies)
            yield found if file.precision == "float32" else _and_task(found, bundle, file, reference, task)
    saved = bundle.files("savedmodel")
    if saved:
        graph = _graph(bundle, saved)
        for signature, answer, expected in _signatures(bundle, graph, reference, images, expected_mean):
            run = functools.partial(_timed, answer)
            yield _difference("saved_model.pb", signature, run, expected, BY_PRECISION["float32"], entropies)


def checking_images(kept: np.ndarray, low: float, high: float, count: int = 16) -> np.ndarray:
    """Real images and half as many of uniform noise over the input's range, float32."""
    real = kept[:count].astype(np.float32)
    noise = np.random.default_rng(23).uniform(low, high, (max(1, len(real) // 2), *real.shape[1:]))
    return np.concatenate([real, noise.astype(np.float32)])


def _answered(bundle: Bundle, file: FileRecord, calls: list[Inputs]) -> tuple[Outputs, float]:
    """The calls' answers, and the last one's seconds, which have no start in them."""
    graph = _graph(bundle, [file])
    answers = [graph(call) for call in calls]
    begin = time.perf_counter()
    graph(calls[-1])
    return _joined(answers), time.perf_counter() - begin


def _and_task(found: Difference, bundle: Bundle, file: FileRecord, reference: Reference, task: Task) -> Difference:
    """The difference with the scores of the task; a file that has no finite answers has no scores."""
    if found.faults or not task.targets:
        return found
    posterior, graph = bundle.manifest.posterior, _graph(bundle, [file])
    answers, expected = [], []
    for images in task.batches():
        answers.append(graph({"images": images}))
        if file.variant == "mean":
            expected.append(reference.mean(images))
        else:
            first, count = file.draws or (0, 0)
            expected.append(reference.draws(images, posterior.seed, posterior.order[first : first + count]))
    allowed = BY_PRECISION[file.precision].task
    rows, faults = task.compared(reference.model.heads, file.path, _joined(answers), _joined(expected), allowed)
    return dataclasses.replace(found, task=tuple(rows), faults=tuple(faults))


def _timed(answer: Callable[[], Outputs]) -> tuple[Outputs, float]:
    found, begin = answer(), time.perf_counter()
    answer()
    return found, time.perf_counter() - begin


def _asked_of_sampled(
    reference: Reference, posterior: PosteriorRecord, images: np.ndarray
) -> tuple[list[Inputs], Outputs]:
    """Two calls, of the bundle's own seed and of another from an odd position on."""
    calls, answers = [], []
    for seed, start in ((posterior.seed, 0), (_OTHER_SEED, _FEWER)):
        indices = posterior.order if seed == posterior.seed else range(start + posterior.chunk)
        asked = {"seed": np.array([seed], np.int32), "start": np.array([start], np.int32)}
        calls.append({"images": images, **asked})
        answers.append(reference.draws(images, seed, indices[start : start + posterior.chunk]))
    return calls, _joined(answers)


def _joined(answers: Sequence[Outputs]) -> Outputs:
    """Answers one after the other along the batch."""
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


def _signatures(
    bundle: Bundle, graph: Graph, reference: Reference, images: np.ndarray, expected_mean: Outputs
) -> Iterator[tuple[str, Callable[[], Outputs], Outputs]]:
    posterior = bundle.manifest.posterior
    yield "mean", lambda: graph({"images": images}, "mean"), expected_mean
    if posterior is None:
        return
    bank = reference.draws(images, posterior.seed, posterior.order[: posterior.samples])
    yield "serving_default", lambda: graph({"images": images}, "serving_default"), bank
    fewer = min(_FEWER, posterior.max_samples)
    other = reference.draws(images, _OTHER_SEED, range(fewer))
    asked = {"num_samples": np.array([fewer], np.int32), "seed": np.array([_OTHER_SEED], np.int32)}
    yield "sample", lambda: graph({"images": images, **asked}, "sample"), other
    each = reference.each(images, _OTHER_SEED, range(fewer))
    means = {name: np.stack([one[name] for one in each], 1) for name in each[0] if name.endswith(".mean")}
    yield "draws", lambda: graph({"images": images, **asked}, "draws"), means
    if encodable(reference.model):
        pixels = images.round().astype(np.uint8)
        pictures = np.array([encode_png(image) for image in pixels], object)
        decoded = reference.draws(pixels.astype(np.float32), posterior.seed, posterior.order[: posterior.samples])
        yield "encoded", lambda: graph({"image_bytes": pictures}, "encoded"), decoded


def _difference(
    file: str,
    signature: str,
    run: Callable[[], tuple[Outputs, float]],
    expected: Outputs,
    kind: Kind,
    entropies: Collection[str],
) -> Difference:
    """entropies: the heads whose uncertainties are entropies; the others' are variances."""
    rows, faults = [], []
    try:
        answer, seconds = run()
    except ProbrtError:
        raise
    except Exception as error:  # every engine has exceptions of its own
        return Difference(f"{file} {signature}".strip(), (), (f"does not run: {one_line(error)[:300]}",))
    for name in sorted({*answer, *expected}):
        if name not in answer or name not in expected:
            faults.append(f"{name} is {'missing' if name in expected else 'one too many'}")
            continue
        got, want = np.asarray(answer[name], np.float64), np.asarray(expected[name], np.float64)
        if got.shape != want.shape:
            faults.append(f"{name} has shape {list(got.shape)}, the model gives {list(want.shape)}")
            continue
        if not np.isfinite(got).all():
            faults.append(f"{name} is not finite")
            continue
        allowed = kind.tolerance * max(1.0, float(np.abs(want).max()))
        absolute = float(np.abs(got - want).max())
        head, _, quantity = name.partition(".")
        ranking = None if name.endswith(".mean") else _ranking(got, want)
        rows.append(
            ParityRecord(
                file=file,
                signature=signature,
                head=head,
                quantity=quantity,
                absolute=absolute,
                relative=absolute / max(float(np.abs(want).max()), 1e-30),
                tolerance=allowed,
                ranking=ranking,
            )
        )
        if absolute > allowed:
            faults.append(f"{name} differs by {absolute:.2g}, allowed {allowed:.2g}")
        if ranking is not None and ranking < kind.ranking:
            faults.append(f"{name} ranks the images otherwise (rank correlation {ranking:.2f}, least {kind.ranking:g})")
        if name.endswith(".epistemic"):
            mean = np.abs(expected[f"{name.removesuffix('epistemic')}mean"]).max()
            least = _ROUNDING if head in entropies else (_ROUNDING * float(mean)) ** 2
            faults += _spread_faults(name, got, want, least, max(_SPREAD, kind.tolerance))
    count = max(1, len(next(iter(expected.values()))))
    return Difference(f"{file} {signature}".strip(), tuple(rows), tuple(faults), 1000.0 * seconds / count)


def _spread_faults(name: str, got: np.ndarray, want: np.ndarray, least: float, allowed: float) -> list[str]:
    """Sampling must be seen: spread between draws, above the rounding `least`, and as much of it as the model has."""
    if got.max() <= least:
        return [f"{name} is 0 everywhere but for rounding: the draws are all alike"]
    if want.mean() > _SMALL and abs(got.mean() / want.mean() - 1) > allowed:
        return [f"{name} is {got.mean():.3g} on average, the model's is {want.mean():.3g}"]
    return []


def _ranking(got: np.ndarray, want: np.ndarray) -> float | None:
    """Spearman's rank correlation over images of an uncertainty (its average per image); None where all are alike."""
    ours, theirs = (values.reshape(len(values), -1).mean(1) for values in (got, want))
    if theirs.std() <= _SMALL or ours.std() == 0:
        return None
    # Where a model is sure, rounding alone would order the images.
    ours = np.where(np.abs(ours - theirs) <= _ROUNDING * max(1.0, np.abs(theirs).max()), theirs, ours)
    ranks = [np.argsort(np.argsort(values)).astype(np.float64) for values in (ours, theirs)]
    return float(np.clip(np.corrcoef(*ranks)[0, 1], -1.0, 1.0))


def _graph(bundle: Bundle, files: Sequence[FileRecord]) -> Graph:
    name = _ENGINES[files[0].format]
    engine = next(one for one in engines() if one.name == name)
    if not engine.installed:
        raise MissingError(f"checking {files[0].path} needs {name}, not installed; {engine.install}")
    return engine.load_module().load(bundle, list(files), "cpu", _THREADS)
