"""ONNX models in less than float32: weights in half precision or int8, or weights and activations in int8.

`tflite_quantize.py` does the same for TFLite.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# Smaller arrays are biases and scales: their precision is worth more than their bytes.
_MIN_SIZE = 64
# Which axis of a weight has one entry per output channel; -1 is the last.
_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1, "MatMul": -1, "Gemm": -1}
# Sums along skip connections would lose more than the products: their range is that of all layers before them.
_QUANTIZED = ["Conv", "ConvTranspose", "MatMul", "Gemm"]


def store_weights_in_float16(model: Any) -> None:
    """Stores the weights of an ONNX model in half precision, in place; the model computes in float32."""
    from onnx import TensorProto, helper, numpy_helper

    for weight, values in _large_weights(model):
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{weight.name}/half"))
        _insert_restoring_node(model, weight, helper.make_node("Cast", [weight.name], [""], to=TensorProto.FLOAT))


def store_weights_in_int8(model: Any) -> None:
    """Stores the weights of an ONNX model in int8 with a scale per output channel, in place; it computes in float32."""
    from onnx import helper, numpy_helper

    users = {name: node.op_type for node in model.graph.node for name in node.input}
    for weight, values in _large_weights(model):
        axis = _CHANNEL_AXIS.get(users.get(weight.name, ""))
        if axis is None:
            continue
        axis %= values.ndim
        other_axes = tuple(side for side in range(values.ndim) if side != axis)
        scale = np.maximum(np.abs(values).max(axis=other_axes), 1e-12).astype(np.float32) / 127.0
        shape = [-1 if side == axis else 1 for side in range(values.ndim)]
        name = weight.name
        integers = np.round(values / scale.reshape(shape)).astype(np.int8)
        weight.CopyFrom(numpy_helper.from_array(integers, f"{name}/int8"))
        model.graph.initializer.append(numpy_helper.from_array(scale, f"{name}/scale"))
        node = helper.make_node("DequantizeLinear", [weight.name, f"{name}/scale"], [""], axis=axis)
        _insert_restoring_node(model, weight, node)


def quantize_to_int8(model: Any, images: npt.NDArray[np.float32]) -> Any:
    """Returns the ONNX model with weights and activations in int8.

    images: representative inputs [count, *input.shape]; the ranges of the activations are measured on them.
    """
    import onnx
    from onnxruntime import quantization

    class ImageReader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._batches: Iterator[dict[str, npt.NDArray[np.float32]]] = ({"images": image[None]} for image in images)

        def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
            return next(self._batches, None)

    # ONNX Runtime multiplies by a matrix with one zero point only.
    has_matrices = any(node.op_type in ("MatMul", "Gemm") for node in model.graph.node)
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)  # it recommends a preprocessing that tf2onnx has done
    try:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
            onnx.save(model, source)
            quantization.quantize_static(
                source,
                target,
                ImageReader(),
                op_types_to_quantize=_QUANTIZED,
                per_channel=not has_matrices,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
            )
            return onnx.load(target)
    finally:
        logging.root.setLevel(level)


def join_models(body: Any, tail: Any, names: Sequence[str]) -> Any:
    """Joins two ONNX models: the outputs `names` of `body` become the inputs of `tail`."""
    from onnx import compose

    # Inputs and outputs keep their names; those in between get a prefix, because they would collide.
    first = compose.add_prefix(body, "body/", rename_inputs=False, rename_outputs=False)
    second = compose.add_prefix(tail, "tail/", rename_inputs=False, rename_outputs=False)
    return compose.merge_models(first, second, io_map=[(name, name) for name in names])


def _large_weights(model: Any) -> Iterator[tuple[Any, npt.NDArray[np.float32]]]:
    """Yields each large float32 initializer and its values."""
    from onnx import TensorProto, numpy_helper

    for weight in list(model.graph.initializer):
        if weight.data_type == TensorProto.FLOAT and len(weight.dims) > 1:
            values = numpy_helper.to_array(weight)
            if values.size >= _MIN_SIZE:
                yield weight, values


def _insert_restoring_node(model: Any, weight: Any, node: Any) -> None:
    """Inserts a node that restores the weight in float32 under the name that other nodes read."""
    node.output[0] = weight.name.rpartition("/")[0]
    model.graph.node.insert(0, node)
