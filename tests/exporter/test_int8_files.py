"""Files of the posterior mean in int8: the layers that change the answers too much stay float32, and no others."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from probrt.exporter.formats import BY_PRECISION, GraphSpec
from probrt.exporter.int8_files import LARGEST_SHARE, Int8Files, share_of_allowed
from probrt.exporter.onnx_float16 import store_weights_in_float16
from probrt.exporter.onnx_int8 import load

SIDE = 64
rng = np.random.default_rng(5)


def make_weights(outputs: int = SIDE) -> np.ndarray:
    return (rng.normal(size=(SIDE, outputs)) / np.sqrt(SIDE)).astype(np.float32)


def make_model(*layers: np.ndarray, novelty: np.ndarray | None = None) -> onnx.ModelProto:
    """Matrix products with a ReLU between; the last gives `slant.mean`, and one more on its input a novelty."""
    nodes, source = [], "images"
    for place in range(len(layers)):
        last = place == len(layers) - 1
        if last and novelty is not None:
            nodes.append(helper.make_node("MatMul", [source, "distances"], ["novelty.score"]))
        nodes.append(helper.make_node("MatMul", [source, f"w{place}"], ["slant.mean" if last else f"stage{place}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"stage{place}"], [f"relu{place}"]))
            source = f"relu{place}"
    constants = [numpy_helper.from_array(weights, f"w{place}") for place, weights in enumerate(layers)]
    outputs = ["slant.mean"]
    if novelty is not None:
        constants.append(numpy_helper.from_array(novelty, "distances"))
        outputs.append("novelty.score")
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", SIDE])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", None]) for name in outputs],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def make_images() -> np.ndarray:
    images = rng.uniform(0, 1, (20, SIDE)).astype(np.float32)
    images[:, 0] = 0.0
    return images


@pytest.mark.parametrize("precision", ["dynamic", "int8"])
def test_a_layer_with_one_large_weight_stays_in_float(precision: str) -> None:
    """A weight that no image reaches makes the step larger than all others: in int8 they would be gone."""
    layers = [make_weights() for _ in range(3)]
    layers[1][0, 0] = 1000.0
    layers[0][:, 0] = -1.0  # so that the ReLU before it gives 0
    images, spec = make_images(), GraphSpec("mean", "onnx", BY_PRECISION[precision])
    model = make_model(*layers, make_weights(3))
    files = Int8Files(images, images[:8], ["stage0", "stage1", "stage2"])
    quantized = files.quantize(model, spec, None)
    (record,) = files.describe()
    assert [layer["precision"] for layer in record["layers"]] == ["int8", "float32", "int8"]
    assert record["layers"][1]["reason"] == "its rounding changes the answers too much"
    share = share_of_allowed(load(quantized)({"images": images}), load(model)({"images": images}), spec.precision)
    assert 0 < share <= LARGEST_SHARE


def test_where_no_layer_can_be_in_int8_there_is_no_file() -> None:
    """The only layer before the final one is as above; and a network of final layers alone has none."""
    weights = make_weights()
    weights[0, 0] = 1000.0
    spec = GraphSpec("mean", "onnx", BY_PRECISION["int8"])
    files = Int8Files(make_images(), make_images(), [])
    assert files.quantize(make_model(weights, make_weights(3)), spec, None) is None
    assert [layer["precision"] for layer in files.describe()[0]["layers"]] == ["float32"]
    assert Int8Files(make_images(), make_images(), []).quantize(make_model(make_weights(3)), spec, None) is None


def test_the_share_is_that_of_what_the_gate_allows() -> None:
    """0.1 of the largest value or of 1, one novelty score of itself or 1, and the p-value follows from it."""
    precision = BY_PRECISION["int8"]
    expected = {
        "slant.mean": np.array([[8.0], [-2.0]]),
        "novelty.score": np.array([3.0, 0.5]),
        "novelty.p_value": np.ones(2),
    }
    moved = {name: values.copy() for name, values in expected.items()}
    assert share_of_allowed(moved, expected, precision) == 0
    moved["slant.mean"][1] += 0.4
    moved["novelty.p_value"][:] = 0
    assert share_of_allowed(moved, expected, precision) == pytest.approx(0.4 / 8 / precision.tolerance)
    moved["novelty.score"][0] += 2.4
    assert share_of_allowed(moved, expected, precision) == pytest.approx(0.8 / precision.novelty_tolerance)
    moved["novelty.score"][1] -= 0.9
    assert share_of_allowed(moved, expected, precision) == pytest.approx(0.9 / precision.novelty_tolerance)


def test_half_precision_leaves_what_only_the_novelty_needs() -> None:
    model = make_model(make_weights(), make_weights(3), novelty=make_weights(2))
    store_weights_in_float16(model)
    types = {tensor.name.partition("/")[0]: tensor.data_type for tensor in model.graph.initializer}
    assert types == {"w0": TensorProto.FLOAT16, "w1": TensorProto.FLOAT16, "distances": TensorProto.FLOAT}
