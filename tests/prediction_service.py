"""TensorFlow Serving's PredictionService over gRPC: its own server if this machine has one, else a stand-in.

The stand-in has the protos of `tensorflow-serving-api` and TensorFlow's batching, with the bundle's own parameters. As
the real one does it fills in a signature's defaults first and merges every input then.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from model_servers import find_free_port, install_packages, serve
from tensorflow.core.protobuf import saved_model_pb2

PROGRAM = "tensorflow_model_server"
Arrays = Mapping[str, np.ndarray]


class PredictionClient:
    """Calls signatures of one model. merged: how many rows each run of the stand-in had; empty for the real server."""

    def __init__(self, model: str, port: int) -> None:
        self._model = model
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

        self._make_request = predict_pb2.PredictRequest
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self.merged: list[int] = []

    def __call__(self, signature: str, inputs: Arrays) -> dict[str, np.ndarray]:
        request = self._make_request()
        request.model_spec.name, request.model_spec.signature_name = self._model, signature
        for name, values in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
        return self.send(request)

    def send(self, request: Any) -> dict[str, np.ndarray]:
        """Sends a request as it is; grpc.RpcError if it is refused."""
        response = self._stub.Predict(request, timeout=120, wait_for_ready=True)
        return {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}

    def close(self) -> None:
        self._channel.close()


def add_protos() -> None:
    """Makes the protos of tensorflow-serving-api importable."""
    folder = install_packages("tensorflow-serving-api-2.21.0", "--no-deps", "tensorflow-serving-api==2.21.0")
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


@contextmanager
def serve_bundle(home: Path, log: Path) -> Iterator[tuple[str, PredictionClient]]:
    """Serves the newest version in a model folder with batching; yields what serves it, and a client."""
    add_protos()
    port = find_free_port()
    newest = max((path for path in home.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    client = PredictionClient(home.name, port)
    try:
        if shutil.which(PROGRAM):
            batching = newest / "assets.extra" / "batching_parameters.txt"
            command = [PROGRAM, f"--port={port}", "--rest_api_port=0", f"--model_name={home.name}"]
            command += [f"--model_base_path={home}", "--enable_batching", f"--batching_parameters_file={batching}"]
            with serve(command, port, log, os.environ):
                yield PROGRAM, client
        else:
            with _serve_stand_in(newest, port, client.merged):
                yield "a stand-in for TensorFlow Serving", client
    finally:
        client.close()


@contextmanager
def _serve_stand_in(folder: Path, port: int, merged: list[int]) -> Iterator[None]:
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    loaded = tf.saved_model.load(str(folder))
    content = (folder / "saved_model.pb").read_bytes()
    definitions = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0].signature_def
    settings = _read_settings(folder / "assets.extra" / "batching_parameters.txt")
    functions = {name: _batch(name, function, settings, merged) for name, function in loaded.signatures.items()}

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 (the protocol's name)
            name = request.model_spec.signature_name
            tensors = {**definitions[name].defaults, **request.inputs}
            try:
                outputs = functions[name]({key: tf.constant(tf.make_ndarray(value)) for key, value in tensors.items()})
            except (tf.errors.OpError, ValueError) as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            response = predict_pb2.PredictResponse()
            for key, value in outputs.items():
                response.outputs[key].CopyFrom(tf.make_tensor_proto(value.numpy()))
            return response

    server = grpc.server(ThreadPoolExecutor(16))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield
    finally:
        server.stop(None).wait()


def _read_settings(path: Path) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"(\w+) \{ value: (\d+) \}", path.read_text())}


def _batch(
    signature: str, function: Any, settings: Mapping[str, int], merged: list[int]
) -> Callable[[dict[str, Any]], Any]:
    """Returns a signature behind TensorFlow's batching; runs of the same shapes are merged."""
    names = sorted(function.structured_input_signature[1])
    lock = threading.Lock()

    def record(rows: np.ndarray) -> np.ndarray:
        with lock:
            merged.append(int(rows))
        return rows

    @tf.nondifferentiable_batch_function(
        settings["num_batch_threads"],
        settings["max_batch_size"],
        settings["batch_timeout_micros"],
        allowed_batch_sizes=list(range(1, settings["max_execution_batch_size"] + 1)),
        max_enqueued_batches=settings["max_enqueued_batches"],
        enable_large_batch_splitting=True,
    )
    def run(*tensors: Any) -> Any:
        with tf.control_dependencies([tf.numpy_function(record, [tf.shape(tensors[0])[0]], tf.int32)]):
            tensors = tuple(tf.identity(tensor) for tensor in tensors)
        return function(**dict(zip(names, tensors, strict=True)))

    @tf.function(reduce_retracing=True)
    def call(inputs: dict[str, Any]) -> Any:
        with tf.name_scope(signature):  # queues of the same name are one
            return run(*[inputs[name] for name in names])

    return call
