"""ONNX files: names of dimensions, the order of outputs, and bounds."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

from probrt.exporter.constants import freeze_variables
from probrt.exporter.graphs import compile_function
from probrt.exporter.onnx_convert import convert_to_onnx


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ([None, None, None, 1], ["batch", "height", "width", 1]),
        ([None, 8, 8, 1], ["batch", 8, 8, 1]),
        ([None, None, 3], ["batch", "length", 3]),
        ([None, 5], ["batch", 5]),
    ],
)
def test_dimensions_that_vary_have_names(shape: list[int | None], names: list[str | int]) -> None:
    def answer(images: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"a.mean": tf.reduce_sum(images, -1) + tf.cast(seed[0], tf.float32)}

    spec = [tf.TensorSpec(shape, tf.float32, name="images"), tf.TensorSpec([1], tf.int32, name="seed")]
    model = convert_to_onnx(freeze_variables(compile_function(answer, spec)), "test.onnx")
    dimensions = {
        value.name: [dimension.dim_param or dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert dimensions["images"] == names
    assert dimensions["seed"] == [1]
    assert dimensions["a.mean"][0] == "batch"
    assert not any(str(dimension).startswith("unk__") for dimension in dimensions["images"])


def test_a_bound_is_one_operation_and_novelty_comes_first() -> None:
    def answer(images: tf.Tensor) -> dict[str, tf.Tensor]:
        score = tf.clip_by_value(images[:, 0], -1.0, 2.0)
        # What reads the minimum alone keeps it, and a maximum of two tensors is no bound.
        capped = tf.minimum(images[:, 1], 0.5)
        outputs = {"a.mean": tf.maximum(capped, -0.5), "b.mean": capped, "novelty.score": score}
        return outputs | {"c.mean": tf.maximum(images[:, 0], tf.minimum(images[:, 1], 0.25))}

    spec = [tf.TensorSpec([None, 2], tf.float32, name="images")]
    function = freeze_variables(compile_function(answer, spec))
    model = convert_to_onnx(function, "test.onnx")
    assert [output.name for output in model.graph.output] == ["novelty.score", "a.mean", "b.mean", "c.mean"]
    assert [node.op_type for node in model.graph.node].count("Clip") == 1
    images = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32) * 2
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    for name, values in zip(names, session.run(names, {"images": images}), strict=True):
        np.testing.assert_array_equal(values, function(tf.constant(images))[name].numpy())
