"""The parity gate: every file against the model under the same reading, before anything is published."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from probrt.exporter.reference import Answer, Reference
from probrt.exporter.signatures import encodable
from probrt.runtime.bundle import Bundle
from probrt.runtime.engines import Graph, engines
from probrt.runtime.errors import MissingError
from probrt.runtime.manifest import File, Parity, Posterior

# Of a difference, as a part of the largest reference value (or of 1, if that is larger). Float32 graphs
# differ by the order of their sums: 1e-6 to 1e-5 on networks of a hundred layers.
TOLERANCES = {"float32": 1e-4}
# How far the average spread between draws may lie from the model's, as a part of it; below _SMALL, in
# the unit of the quantity, rounding alone can be that much.
_SPREAD = 0.02
_SMALL = 1e-4
_OTHER_SEED = 11
_FEWER = 5
_ENGINES = {"tflite": "litert", "onnx": "onnxruntime", "savedmodel": "tensorflow"}


@dataclass(frozen=True)
class Difference:
    """The rows of the manifest for one file (or signature), and what is wrong with it, if anything."""

    file: str
    outputs: tuple[Parity, ...]
    faults: tuple[str, ...]


def differences(bundle: Bundle, reference: Reference, images: np.ndarray) -> Iterator[Difference]:
    """Every file of an unpublished bundle against the model, on raw images [count, *input.shape]."""
    threads = 2
    posterior = bundle.manifest.posterior
    expected_mean = reference.mean(images)
    for file in bundle.manifest.files:
        if file.format == "savedmodel" or file.precision not in TOLERANCES:
            continue
        graph = _graph(bundle, [file], threads)
        inputs = {"images": images}
        tolerance = TOLERANCES[file.precision]
        if file.variant == "mean":
            expected = expected_mean
        elif file.variant == "sampled":
            asked, expected = _asked_of_sampled(reference, posterior, images)
            yield _difference(file.path, "", _joined([graph(inputs | one) for one in asked]), expected, tolerance)
            continue
        else:
            first, count = file.draws or (0, 0)
            expected = reference.draws(images, posterior.seed, posterior.order[first : first + count])
        yield _difference(file.path, "", graph(inputs), expected, tolerance)
    saved = bundle.files("savedmodel")
    if saved:
        graph = _graph(bundle, saved, threads)
        for signature, answer, expected in _signatures(bundle, graph, reference, images, expected_mean):
            yield _difference("saved_model.pb", signature, answer(), expected, TOLERANCES["float32"])


def checking_images(kept: np.ndarray, low: float, high: float, count: int = 16) -> np.ndarray:
    """Real images and half as many of uniform noise over the input's range, float32."""
    real = kept[:count].astype(np.float32)
    noise = np.random.default_rng(0).uniform(low, high, (max(1, len(real) // 2), *real.shape[1:]))
    return np.concatenate([real, noise.astype(np.float32)])


def _asked_of_sampled(reference: Reference, posterior: Posterior, images: np.ndarray) -> tuple[list[dict], Answer]:
    """Two calls, of the bundle's own seed and of another from an odd position on, and what the model says to both."""
    asked, answers = [], []
    for seed, start in ((posterior.seed, 0), (_OTHER_SEED, _FEWER)):
        indices = posterior.order if seed == posterior.seed else range(start + posterior.chunk)
        asked.append({"seed": np.array([seed], np.int32), "start": np.array([start], np.int32)})
        answers.append(reference.draws(images, seed, indices[start : start + posterior.chunk]))
    return asked, _joined(answers)


def _joined(answers: Sequence[Answer]) -> Answer:
    """Answers one after the other along the batch."""
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


def _signatures(
    bundle: Bundle, graph: Graph, reference: Reference, images: np.ndarray, expected_mean: Answer
) -> Iterator[tuple[str, Callable[[], Answer], Answer]]:
    posterior = bundle.manifest.posterior
    yield "mean", lambda: graph({"images": images}, "mean"), expected_mean
    if posterior is None:
        return
    bank = reference.draws(images, posterior.seed, posterior.order[: posterior.samples])
    yield "serving_default", lambda: graph({"images": images}, "serving_default"), bank
    other = reference.draws(images, _OTHER_SEED, range(_FEWER))
    asked = {"num_samples": np.array([_FEWER], np.int32), "seed": np.array([_OTHER_SEED], np.int32)}
    yield "sample", lambda: graph({"images": images, **asked}, "sample"), other
    each = reference.each(images, _OTHER_SEED, range(_FEWER))
    means = {name: np.stack([one[name] for one in each], 1) for name in each[0] if name.endswith(".mean")}
    yield "draws", lambda: graph({"images": images, **asked}, "draws"), means
    if encodable(reference.model):
        pixels = images.round().astype(np.uint8)
        pictures = np.array([_png(image) for image in pixels], object)
        decoded = reference.draws(pixels.astype(np.float32), posterior.seed, posterior.order[: posterior.samples])
        yield "encoded", lambda: graph({"image_bytes": pictures}, "encoded"), decoded


def _difference(file: str, signature: str, answer: Answer, expected: Answer, tolerance: float) -> Difference:
    rows, faults = [], []
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
        largest = max(1.0, float(np.abs(want).max()))
        absolute = float(np.abs(got - want).max())
        output = f"{signature}:{name}" if signature else name
        rows.append(
            Parity(
                file=file,
                output=output,
                absolute=absolute,
                relative=absolute / max(float(np.abs(want).max()), 1e-30),
                tolerance=tolerance * largest,
            )
        )
        if absolute > tolerance * largest:
            faults.append(f"{name} differs by {absolute:.2g}, allowed {tolerance * largest:.2g}")
        if name.endswith(".epistemic"):
            faults += _spread_faults(name, got, want)
    return Difference(f"{file} {signature}".strip(), tuple(rows), tuple(faults))


def _spread_faults(name: str, got: np.ndarray, want: np.ndarray) -> list[str]:
    """Sampling must be seen: spread between draws, and as much of it as the model has."""
    if got.max() <= 0:
        return [f"{name} is 0 everywhere: the draws are all alike"]
    if want.mean() > _SMALL and abs(got.mean() / want.mean() - 1) > _SPREAD:
        return [f"{name} is {got.mean():.3g} on average, the model's is {want.mean():.3g}"]
    return []


def _graph(bundle: Bundle, files: Sequence[File], threads: int) -> Graph:
    name = _ENGINES[files[0].format]
    engine = next(one for one in engines() if one.name == name)
    if not engine.installed:
        raise MissingError(f"checking {files[0].path} needs {name}, not installed; {engine.install}")
    return engine.load_module().load(bundle, list(files), "cpu", threads)


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(stream, "PNG")
    return stream.getvalue()
