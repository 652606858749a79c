"""Joins the ONNX files of a bank into one: for servers that take one model file and combine nothing themselves.

The joined graph answers for all draws of the bank. What its chunks have in common, the features before the first random
weights, is in it once. As in the SavedModel, a row with a value that is not finite or outside the input's range is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from probrt.exporter.onnx_merge import GraphMerger
from probrt.runtime.bundle.answers import read_answers
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import FileRecord, HeadRecord, Input
from probrt.runtime.engines.outputs import expected_outputs
from probrt.runtime.errors import ParityError, UsageError
from probrt.runtime.predict.predictor import load_predictor

Tensors = Mapping[str, str]  # the name of a tensor in the graph, by output
# Both compute in float32 and differ by the order of their sums, as the float32 files of an export may.
_TOLERANCE = 1e-4
_LARGEST = float(np.finfo(np.float32).max)


def join_chunks(bundle: Bundle) -> bytes:
    """Returns one ONNX model that answers as `predict` does over the whole bank, or at the mean without random weights.

    Raises UsageError if the bundle has no float32 ONNX file of draws, ParityError if the joined model's answers to the
    bundle's stored images differ from those of `predict`.
    """
    import onnx

    files = choose_files(bundle)
    merger = GraphMerger(bundle.manifest.model.name)
    chunks = []
    for file in files:
        graph = onnx.load_from_string(bundle.read(file))
        _check_names(bundle, file, graph.graph)
        chunks.append(merger.add(graph))
    draws = [file.draws[1] if file.draws else 1 for file in files]
    outputs = dict(chunks[0])
    if len(chunks) > 1:
        for head in bundle.manifest.heads:
            outputs |= _combine_head(merger, head, chunks, [count / sum(draws) for count in draws])
    model = merger.finish(_set_nan_rows(merger, bundle.manifest.input, outputs, _ranks(bundle, files[0])))
    onnx.checker.check_model(model)
    content = bytes(model.SerializeToString())
    _compare_answers(bundle, content)
    return content


def choose_files(bundle: Bundle) -> list[FileRecord]:
    """Returns the chunks of the bank in their order, or `mean` of a model without random weights."""
    files = bundle.files("onnx", "draws") or bundle.files("onnx", "mean")
    if not files:
        raise UsageError(
            f"{bundle.label}: has no float32 ONNX file; leave onnx in --formats and float32 in --precisions"
        )
    if files[0].variant == "mean" and bundle.manifest.posterior is not None:
        raise UsageError(f"{bundle.label}: has no ONNX file of draws; leave draws in --variants")
    return list(files)


def _check_names(bundle: Bundle, file: FileRecord, graph: Any) -> None:
    for what, values, expected in (
        ("inputs", graph.input, ["images"]),
        ("outputs", graph.output, list(expected_outputs(bundle.manifest, file, file.variant))),
    ):
        names = [value.name for value in values]
        if sorted(names) != sorted(expected):
            raise ParityError(f"{file.path}: its {what} are {', '.join(names)}, the manifest's {', '.join(expected)}")


def _ranks(bundle: Bundle, file: FileRecord) -> dict[str, int]:
    """The number of dimensions of each output, the batch included."""
    return {name: len(shape) + 1 for name, shape in expected_outputs(bundle.manifest, file, file.variant).items()}


def _combine_head(
    merger: GraphMerger, head: HeadRecord, chunks: Sequence[Tensors], shares: Sequence[float]
) -> dict[str, str]:
    """Combines one head's outputs over chunks by the formulas of `probrt.runtime.predict.combine`."""

    def add_average(tensors: Sequence[str]) -> str:
        weighted = [merger.add_node("Mul", name, share) for name, share in zip(tensors, shares, strict=True)]
        return merger.add_node("Sum", *weighted)

    def list_chunks(quantity: str) -> list[str]:
        return [chunk[f"{head.name}.{quantity}"] for chunk in chunks]

    names = ("mean", "aleatoric", *head.extra)
    outputs = {name: add_average(list_chunks(name)) for name in names}
    if head.kind == "real":
        spreads = []
        for mean, epistemic in zip(list_chunks("mean"), list_chunks("epistemic"), strict=True):
            deviation = merger.add_node("Sub", mean, outputs["mean"])
            spreads.append(merger.add_node("Add", epistemic, merger.add_node("Mul", deviation, deviation)))
        outputs["epistemic"] = add_average(spreads)
        outputs["total"] = merger.add_node("Add", outputs["aleatoric"], outputs["epistemic"])
    else:
        outputs["total"] = _add_entropy(merger, head, outputs["mean"])
        # Rounding may put the entropy of the mean a little below the mean entropy.
        difference = merger.add_node("Sub", outputs["total"], outputs["aleatoric"])
        outputs["epistemic"] = merger.add_node("Max", difference, 0.0)
    return {f"{head.name}.{quantity}": tensor for quantity, tensor in outputs.items()}


def _add_entropy(merger: GraphMerger, head: HeadRecord, mean: str) -> str:
    def add_terms(probability: str) -> str:
        logarithm = merger.add_node("Log", merger.add_node("Max", probability, 1e-30))
        return merger.add_node("Neg", merger.add_node("Mul", probability, logarithm))

    terms = add_terms(mean)
    if head.kind == "class":
        return merger.add_node("ReduceSum", terms, np.array([-1], np.int64), keepdims=0)
    return merger.add_node("Add", terms, add_terms(merger.add_node("Max", merger.add_node("Sub", 1.0, mean), 0.0)))


def _set_nan_rows(merger: GraphMerger, input: Input, outputs: Tensors, ranks: Mapping[str, int]) -> dict[str, str]:
    """Sets the rows of bad images to NaN; comparisons with NaN are false."""
    from onnx import TensorProto

    low, high = input.range or (-_LARGEST, _LARGEST)
    inside = merger.add_node(
        "And",
        merger.add_node("GreaterOrEqual", "images", float(low)),
        merger.add_node("LessOrEqual", "images", float(high)),
    )
    numbers = merger.add_node("Cast", inside, to=TensorProto.FLOAT)
    axes = np.arange(1, len(input.shape) + 1, dtype=np.int64)
    least = merger.add_node("ReduceMin", numbers, axes, keepdims=0)
    good = merger.add_node("Cast", least, to=TensorProto.BOOL)
    rows = {1: good}
    for rank in sorted(set(ranks.values()) - {1}):
        rows[rank] = merger.add_node("Unsqueeze", good, np.arange(1, rank, dtype=np.int64))
    return {name: merger.add_node("Where", rows[ranks[name]], tensor, np.nan) for name, tensor in outputs.items()}


def _compare_answers(bundle: Bundle, content: bytes) -> None:
    """Raises ParityError if the joined model answers other than `predict` for the images that the bundle stores."""
    from probrt.runtime.engines.onnxruntime import OnnxRuntime

    images = read_answers(bundle).images()
    expected = load_predictor(bundle, engine="onnxruntime", device="cpu")(images)
    outputs = OnnxRuntime(content, "CPUExecutionProvider", threads=0)({"images": images})
    for head in bundle.manifest.heads:
        for quantity, values in expected[head.name].quantities.items():
            name = f"{head.name}.{quantity}"
            difference = float(np.abs(outputs[name] - values).max() / max(1.0, np.abs(values).max()))
            if not difference <= _TOLERANCE:
                raise ParityError(
                    f"{bundle.label}: the joined model's {name} differs by {difference:.2g} from that of predict, "
                    f"more than {_TOLERANCE:g}"
                )
