"""Names of dimensions in ONNX files."""

from __future__ import annotations

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
