"""ONNX graphs with smaller weights, or with weights and activations in int8."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Smaller arrays are biases and scales: their precision is worth more than their bytes.
_SMALL = 64
# Which axis of a weight has one entry per output channel; -1 the last.
_CHANNEL = {"Conv": 0, "ConvTranspose": 1, "MatMul": -1, "Gemm": -1}


def halved(model: Any) -> None:
    """Stores the weights of an ONNX model in half precision, in place; it computes in float32."""
    from onnx import TensorProto, helper, numpy_helper

    for weight, values in _weights(model):
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{weight.name}/half"))
        _derived(model, weight, helper.make_node("Cast", [weight.name], [""], to=TensorProto.FLOAT))


def eighth(model: Any) -> None:
    """Stores the weights of an ONNX model in int8 with a scale per output channel, in place; it computes in float32."""
    from onnx import helper, numpy_helper

    users = {name: node.op_type for node in model.graph.node for name in node.input}
    for weight, values in _weights(model):
        axis = _CHANNEL.get(users.get(weight.name, ""))
        if axis is None:
            continue
        axis %= values.ndim
        others = tuple(side for side in range(values.ndim) if side != axis)
        scale = np.maximum(np.abs(values).max(axis=others), 1e-12).astype(np.float32) / 127.0
        shape = [-1 if side == axis else 1 for side in range(values.ndim)]
        name = weight.name
        whole = np.round(values / scale.reshape(shape)).astype(np.int8)
        weight.CopyFrom(numpy_helper.from_array(whole, f"{name}/int8"))
        model.graph.initializer.append(numpy_helper.from_array(scale, f"{name}/scale"))
        _derived(model, weight, helper.make_node("DequantizeLinear", [weight.name, f"{name}/scale"], [""], axis=axis))


def fitted(model: Any, images: np.ndarray) -> Any:
    """The ONNX model with weights and activations in int8, its ranges fitted to representative images."""
    import logging

    import onnx
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._rest: Iterator[dict[str, np.ndarray]] = ({"images": image[None]} for image in images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._rest, None)

    # ONNX Runtime multiplies by a matrix with one zero point only.
    matrices = any(node.op_type in ("MatMul", "Gemm") for node in model.graph.node)
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)  # it recommends a preprocessing that tf2onnx has done
    try:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
            onnx.save(model, source)
            quantization.quantize_static(
                source,
                target,
                Reader(),
                per_channel=not matrices,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
            )
            return onnx.load(target)
    finally:
        logging.root.setLevel(level)


def joined(body: Any, tail: Any, names: Sequence[str]) -> Any:
    """Two ONNX models as one: the outputs `names` of `body` are the inputs of `tail`."""
    from onnx import compose

    # Each keeps the names of its inputs and outputs; what lies between would collide.
    first = compose.add_prefix(body, "body/", rename_inputs=False, rename_outputs=False)
    second = compose.add_prefix(tail, "tail/", rename_inputs=False, rename_outputs=False)
    return compose.merge_models(first, second, io_map=[(name, name) for name in names])


def _weights(model: Any) -> Iterator[tuple[Any, np.ndarray]]:
    from onnx import TensorProto, numpy_helper

    for weight in list(model.graph.initializer):
        if weight.data_type == TensorProto.FLOAT and len(weight.dims) > 1:
            values = numpy_helper.to_array(weight)
            if values.size >= _SMALL:
                yield weight, values


def _derived(model: Any, weight: Any, node: Any) -> None:
    """Puts a node in front that makes the weight again under the name that its users know."""
    node.output[0] = weight.name.rpartition("/")[0]
    model.graph.node.insert(0, node)
