"""A feature map with several readers is not transposed in an ONNX graph, and the answers stay the same."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

from probrt.exporter.graphs import compile_function
from probrt.exporter.onnx_convert import convert_to_onnx


@pytest.mark.slow
def test_reductions_read_the_map_of_a_convolution() -> None:
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 4)).astype(np.float32)

    def answer(images: tf.Tensor) -> dict[str, tf.Tensor]:
        features = tf.nn.relu(tf.nn.conv2d(images, kernel, 1, "SAME"))
        last = tf.nn.conv2d(tf.nn.max_pool2d(features, 2, 2, "SAME"), tf.transpose(kernel, [0, 1, 3, 2]), 1, "SAME")
        outputs = {"mean": tf.reduce_mean(features, [1, 2]), "most": tf.reduce_max(features, [1, 2])}
        return outputs | {"rows": tf.reduce_max(features, 1), "last": tf.reduce_mean(last, [1, 2])}

    function = compile_function(answer, [tf.TensorSpec([None, 8, 6, 2], tf.float32, name="images")])
    model = convert_to_onnx(function, "test.onnx")
    transposes = [node for node in model.graph.node if node.op_type == "Transpose"]
    assert len(transposes) <= 2  # of the images, and of the maximum that keeps a side
    images = np.random.default_rng(1).normal(size=(3, 8, 6, 2)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    for name, values in zip(names, session.run(names, {"images": images}), strict=True):
        np.testing.assert_allclose(values, function(tf.constant(images))[name].numpy(), rtol=1e-5, atol=1e-5)
