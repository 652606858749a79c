"""A chunk whose weights were put into another chunk's file is what a conversion of its own gives."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from cases import BY_NAME, CASES, sides_of
from exported_cases import make_examples

from probrt.exporter import graphs
from probrt.exporter.converted_file import read_tflite_graph
from probrt.exporter.drawn_constants import FileGraph, Floats, Operation, find_rules
from probrt.exporter.graph_files import ChunkTemplate, GraphFiles
from probrt.trainer.calibration.novelty import add_novelty
from probrt.trainer.model import Model

CHUNK = 4
# Cases whose weights cannot be told from other constants, by format.
# Groups are sums of parts of a weight, and masks of dropout are equal in several draws.
SEPARATE = ("layers2d_dynamic", "layers3d", "residual_dropout")
USUAL = ("digits", "layers1d")


def make_files(model: Model, chunk: int, template: ChunkTemplate) -> GraphFiles:
    """The first chunk has the novelty too."""
    indices = range(CHUNK * chunk, CHUNK * chunk + CHUNK)
    make = functools.partial(graphs.make_draws_function, model, 3, indices, with_novelty=chunk == 0)
    return GraphFiles(make, functools.partial(graphs.compute_draws, model, 3, indices), template)


def run_onnx(model: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


def run_tflite(content: bytes, images: np.ndarray) -> dict[str, np.ndarray]:
    runner = Interpreter(model_content=content, num_threads=1).get_signature_runner("serving_default")
    answer: dict[str, np.ndarray] = runner(images=images)
    return answer


def count_operations(files: GraphFiles) -> tuple[Counter[str], int]:
    """Returns the operations of the ONNX model by name, and how many the TFLite model has."""
    operations = Counter(node.op_type for node in files.copy_onnx("chunk.onnx").graph.node)
    return operations, len(read_tflite_graph(files.convert_to_tflite("chunk.tflite")).operations)


def make_template(model: Model) -> ChunkTemplate:
    files = make_files(model, 0, ChunkTemplate())
    files.copy_onnx("draws-00.onnx")
    files.convert_to_tflite("draws-00.tflite")
    return files.make_template(model.input)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(case.name, marks=[] if case.name in USUAL else [pytest.mark.stress]) for case in CASES]
)
def test_another_chunk_is_what_its_own_conversion_gives(name: str, measured: Callable[[str, str], None]) -> None:
    """The files give the same bits by the same operations; only tensors may have other names."""
    built = BY_NAME[name].model()
    model = add_novelty(built, make_examples(built, 0), make_examples(built, 1), seed=0).without_auxiliary()
    template = make_template(model)
    assert (template.onnx_rules is None) == (name in SEPARATE)
    assert (template.tflite_rules is None) == (name in SEPARATE)
    made, separate = make_files(model, 1, template), make_files(model, 1, ChunkTemplate())
    low, high = model.input.range or (-1.0, 1.0)
    images = np.random.default_rng(0).uniform(low, high, (3, *sides_of(model.input))).astype(np.float32)
    by_onnx = [run_onnx(files.copy_onnx("chunk.onnx"), images) for files in (made, separate)]
    by_tflite = [run_tflite(files.convert_to_tflite("chunk.tflite"), images) for files in (made, separate)]
    assert count_operations(made) == count_operations(separate)
    for answer, expected in (by_onnx, by_tflite):
        assert sorted(answer) == sorted(expected)
        for output, values in expected.items():
            np.testing.assert_array_equal(answer[output], values, err_msg=output)
    measured(f"{name}: a chunk of draws made from another chunk's files", "the same bits as its own conversion")


def make_graph(weights: list[Floats], others: dict[str, Floats], reads: dict[str, tuple[str, ...]]) -> FileGraph:
    """A graph in which operation `x` reads the constants of `reads[x]`; the last one reads all the others' answers."""
    constants = {f"w{draw}": values.T * np.float32(0.1) for draw, values in enumerate(weights)} | others
    operations = [Operation(("images", *names), (name,)) for name, names in reads.items()]
    return FileGraph(constants, [*operations, Operation(tuple(reads), ("answer",))])


def draw_weights(*shape: int) -> list[Floats]:
    return list(np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32))


def test_a_scale_and_other_axes_are_found() -> None:
    """One scale for each channel, which the values alone determine to the last bit."""
    weights, scale = draw_weights(9, 3), np.array([[0.1], [3.7], [1e-3]], np.float32)
    constants = {f"w{draw}": values.T * scale for draw, values in enumerate(weights)}
    graph = FileGraph(constants, [Operation(tuple(constants), ("answer",))])
    rules = find_rules(graph, [{7: values} for values in weights], 1.0)
    assert rules is not None
    others = draw_weights(9, 3)[::-1]
    made = rules["w1"].make_constant([{7: values} for values in others])
    np.testing.assert_array_equal(made, others[1].T * scale)


def test_a_scale_that_differs_between_draws_is_refused() -> None:
    weights = draw_weights(9, 3)
    constants = {f"w{draw}": values.T * np.float32(1 + draw) for draw, values in enumerate(weights)}
    graph = FileGraph(constants, [Operation(tuple(constants), ("answer",))])
    assert find_rules(graph, [{7: values} for values in weights], 1.0) is None


def test_equal_weights_are_refused() -> None:
    weights = [draw_weights(9, 3)[0]] * 2
    assert find_rules(make_graph(weights, {}, {"a": ("w0",), "b": ("w1",)}), [{7: w} for w in weights], 1.0) is None


def test_a_constant_that_one_draw_alone_reads_is_refused() -> None:
    """A converter may compute a bias from the weights of a draw; such a constant would keep the old draw's values."""
    weights = draw_weights(9, 3)
    draws = [{7: values} for values in weights]
    biases = {f"b{draw}": values.sum(0) for draw, values in enumerate(weights)}
    reads = {"a": ("w0", "b0"), "b": ("w1", "b1")}
    assert find_rules(make_graph(weights, biases, reads), draws, 1.0) is None
    equal = dict.fromkeys(biases, np.ones(3, np.float32))
    assert find_rules(make_graph(weights, equal, reads), draws, 1.0) is not None
    shared = {"c": np.arange(3, dtype=np.float32)}
    assert find_rules(make_graph(weights, shared, {"a": ("w0", "c"), "b": ("w1", "c")}), draws, 1.0) is not None
