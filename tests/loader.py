"""TensorFlow's C++ loader, the one that TensorFlow Serving uses, through its C API: no Python in the graph."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, rewriter_config_pb2

# Without RTLD_GLOBAL: with it, importing numpy.random afterwards crashed the process.
_tf = ctypes.CDLL(str(next(Path(tf.__file__).parent.glob("libtensorflow_cc.so.*"))), mode=ctypes.RTLD_LOCAL)


class _Buffer(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("free", ctypes.c_void_p)]


class _Output(ctypes.Structure):
    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


for _name, _result in {
    "TF_NewStatus": ctypes.c_void_p,
    "TF_Message": ctypes.c_char_p,
    "TF_GetCode": ctypes.c_int,
    "TF_NewGraph": ctypes.c_void_p,
    "TF_NewSessionOptions": ctypes.c_void_p,
    "TF_NewBuffer": ctypes.POINTER(_Buffer),
    "TF_LoadSessionFromSavedModel": ctypes.c_void_p,
    "TF_GraphOperationByName": ctypes.c_void_p,
    "TF_AllocateTensor": ctypes.c_void_p,
    "TF_TensorData": ctypes.c_void_p,
    "TF_TensorType": ctypes.c_int,
    "TF_TensorByteSize": ctypes.c_size_t,
    "TF_NumDims": ctypes.c_int,
    "TF_Dim": ctypes.c_int64,
}.items():
    getattr(_tf, _name).restype = _result


class RefusedError(Exception):
    """The session's status is not OK; holds its message."""


class SavedModelSession:
    """A SavedModel in a C++ session; a call feeds a signature, with its defaults, and fetches all outputs.

    bfloat16: compute in it, as TensorFlow Serving does with --mixed_precision=bfloat16: it sets the same option.
    """

    def __init__(self, folder: Path, bfloat16: bool = False) -> None:
        self._graph = ctypes.c_void_p(_tf.TF_NewGraph())
        status, buffer = ctypes.c_void_p(_tf.TF_NewStatus()), _tf.TF_NewBuffer()
        tags = (ctypes.c_char_p * 1)(b"serve")
        options = ctypes.c_void_p(_tf.TF_NewSessionOptions())
        if bfloat16:
            config = config_pb2.ConfigProto()
            rewrite = config.graph_options.rewrite_options
            rewrite.auto_mixed_precision_onednn_bfloat16 = rewriter_config_pb2.RewriterConfig.ON
            content = config.SerializeToString()
            _tf.TF_SetConfig(options, content, ctypes.c_size_t(len(content)), status)
            _check_status(status)
        session = _tf.TF_LoadSessionFromSavedModel(
            options, None, str(folder).encode(), tags, 1, self._graph, buffer, status
        )
        _check_status(status)
        self._session = ctypes.c_void_p(session)
        content = ctypes.string_at(buffer.contents.data, buffer.contents.length)
        self.signatures = meta_graph_pb2.MetaGraphDef.FromString(content).signature_def

    def __call__(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        definition = self.signatures[signature]
        defaults = {name: tf.make_ndarray(value) for name, value in definition.defaults.items()}
        arrays = {name: np.asarray(value) for name, value in {**defaults, **inputs}.items()}
        names = sorted(definition.outputs)
        answers = (ctypes.c_void_p * len(names))()
        status = ctypes.c_void_p(_tf.TF_NewStatus())
        tensors = [_make_tensor(values) for values in arrays.values()]
        try:
            _tf.TF_SessionRun(
                self._session, None,
                (_Output * len(arrays))(*[self._find_output(definition.inputs[name].name) for name in arrays]),
                (ctypes.c_void_p * len(arrays))(*tensors), len(arrays),
                (_Output * len(names))(*[self._find_output(definition.outputs[name].name) for name in names]),
                answers, len(names), None, 0, None, status,
            )  # fmt: skip
            _check_status(status)
            return {name: _read_array(answer) for name, answer in zip(names, answers, strict=True)}
        finally:
            for tensor in (*tensors, *filter(None, answers)):
                _tf.TF_DeleteTensor(ctypes.c_void_p(tensor))
            _tf.TF_DeleteStatus(status)

    def _find_output(self, tensor: str) -> _Output:
        name, _, index = tensor.partition(":")
        return _Output(_tf.TF_GraphOperationByName(self._graph, name.encode()), int(index or 0))


def _check_status(status: ctypes.c_void_p) -> None:
    if _tf.TF_GetCode(status):
        raise RefusedError(_tf.TF_Message(status).decode())


def _make_tensor(values: np.ndarray) -> int:
    if values.dtype == object:
        return _make_string_tensor(values)
    values = np.ascontiguousarray(values)
    sides = (ctypes.c_int64 * values.ndim)(*values.shape)
    dtype = tf.as_dtype(values.dtype).as_datatype_enum
    tensor = _tf.TF_AllocateTensor(dtype, sides, values.ndim, ctypes.c_size_t(values.nbytes))
    ctypes.memmove(_tf.TF_TensorData(ctypes.c_void_p(tensor)), values.ctypes.data, values.nbytes)
    return tensor


def _make_string_tensor(values: np.ndarray) -> int:
    """Makes a string tensor: an array of TF_TString, 24 bytes each, which the library itself fills."""
    sides = (ctypes.c_int64 * 1)(len(values))
    size = 24
    tensor = _tf.TF_AllocateTensor(tf.string.as_datatype_enum, sides, 1, ctypes.c_size_t(size * len(values)))
    start = _tf.TF_TensorData(ctypes.c_void_p(tensor))
    for index, value in enumerate(values):
        place = ctypes.c_void_p(start + size * index)
        _tf.TF_StringInit(place)
        _tf.TF_StringCopy(place, ctypes.c_char_p(value), ctypes.c_size_t(len(value)))
    return tensor


def _read_array(tensor: int) -> np.ndarray:
    handle = ctypes.c_void_p(tensor)
    shape = [_tf.TF_Dim(handle, side) for side in range(_tf.TF_NumDims(handle))]
    content = ctypes.string_at(_tf.TF_TensorData(handle), _tf.TF_TensorByteSize(handle))
    return np.frombuffer(content, tf.as_dtype(_tf.TF_TensorType(handle)).as_numpy_dtype).reshape(shape)
