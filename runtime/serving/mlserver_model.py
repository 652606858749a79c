"""A bundle as a model of MLServer, which speaks V2 over HTTP and gRPC; KServe runs it as `kserve-mlserver`.

`model-settings.json` names the class below as its `implementation`, the bundle as `parameters.uri`, and in
`parameters.extra` what `OpenInference` takes: engine, device, precision. Only MLServer imports this module.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from mlserver import MLModel
from mlserver.errors import InferenceError, MLServerError
from mlserver.types import (
    Datatype,
    InferenceRequest,
    InferenceResponse,
    MetadataTensor,
    Parameters,
    RequestInput,
    ResponseOutput,
)
from mlserver.utils import get_model_uri

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.errors import Fault, ProbrtError, UsageError
from probrt.runtime.serving.open_inference import InferResponse, OpenInference, TensorSpec, Values

_NUMBERS = ("FP32", "FP64", "UINT8", "UINT16", "UINT32", "INT8", "INT16", "INT32", "INT64")


class OpenInferenceModel(MLModel):  # type: ignore[misc]
    """One bundle; the newest version if the settings name a model folder."""

    async def load(self) -> bool:
        """Opens the bundle, loads its first graph, and states its inputs and outputs; True as MLServer wants."""
        bundle = Bundle.open(Path(await get_model_uri(self._settings)))
        extra = self._settings.parameters.extra or {}
        self._inference = await asyncio.to_thread(OpenInference, bundle, **extra)
        self._settings.platform = "probrt"
        self._settings.versions = [str(bundle.manifest.model.version)]
        self.inputs = [_describe(spec) for spec in self._inference.inputs]
        self.outputs = [_describe(spec) for spec in self._inference.outputs]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answers a request in a thread, so that the server goes on; refusals are its errors of 400, faults of 500."""
        try:
            response = await asyncio.to_thread(self._infer, payload)
        except Fault as error:
            raise MLServerError(str(error), 500) from None
        except ProbrtError as error:
            raise InferenceError(str(error)) from None
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            id=payload.id,
            parameters=Parameters(**response.parameters),
            outputs=[_encode_output(name, values) for name, values in response.outputs.items()],
        )

    def _infer(self, payload: InferenceRequest) -> InferResponse:
        parameters: Mapping[str, object] = payload.parameters.model_dump() if payload.parameters else {}
        inputs = {tensor.name: _read_input(tensor) for tensor in payload.inputs}
        return self._inference.infer(inputs, parameters, [output.name for output in payload.outputs or []])


def _describe(spec: TensorSpec) -> MetadataTensor:
    return MetadataTensor(name=spec.name, datatype=spec.datatype, shape=list(spec.shape))


def _encode_output(name: str, values: npt.NDArray[np.float32]) -> ResponseOutput:
    """Encodes an output in its own shape; MLServer's codec would make [batch] to [batch, 1]."""
    return ResponseOutput(name=name, datatype="FP32", shape=list(values.shape), data=values.ravel().tolist())


def _read_input(tensor: RequestInput) -> Values:
    """Returns numbers as an array, and picture files as bytes: JSON has them in base64, gRPC as they are."""
    datatype, data = Datatype(tensor.datatype).value, tensor.data.root  # a text behind a worker's queue
    if datatype == "BYTES":
        files = [data] if isinstance(data, str | bytes) else list(np.array(data, object).reshape(-1))
        return [_read_file(file, tensor.name, row) for row, file in enumerate(files)]
    if datatype not in _NUMBERS:
        raise UsageError(f"input {tensor.name}: datatype {datatype}; send FP32, or BYTES for image_bytes")
    try:
        return np.array(data, np.float32).reshape(tensor.shape)
    except (TypeError, ValueError):
        raise UsageError(f"input {tensor.name}: its data are not numbers of shape {tensor.shape}") from None


def _read_file(file: object, name: str, row: int) -> bytes:
    if isinstance(file, bytes):
        return file
    try:
        return base64.b64decode(str(file), validate=True)
    except binascii.Error:
        raise UsageError(f"input {name}, row {row}: is not base64, which JSON needs for bytes") from None
