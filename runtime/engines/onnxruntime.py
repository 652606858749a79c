"""ONNX Runtime runs ONNX files on the CPU, CUDA, DirectML or CoreML."""

from collections.abc import Sequence

import onnxruntime as ort

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import FileRecord
from probrt.runtime.bundle.vet_onnx import vet_onnx
from probrt.runtime.engines.graph import Arrays, Outputs, device_error

PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "cpu": "CPUExecutionProvider",
}


def version() -> str:
    return str(ort.__version__)


def devices() -> tuple[str, ...]:
    """Returns the devices of this build; only loading a file shows that a GPU works."""
    return tuple(device for device, provider in PROVIDERS.items() if provider in ort.get_available_providers())


class OnnxRuntime:
    """One ONNX file."""

    def __init__(self, content: bytes, provider: str, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Waiting threads of one chunk's session would keep the processors busy while the next chunk computes.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Errors arrive as exceptions; logs of the session and the process would print beside the one line of an error.
        options.log_severity_level = 4
        ort.set_default_logger_severity(4)
        self._session = ort.InferenceSession(content, options, providers=[provider])
        self._outputs = [output.name for output in self._session.get_outputs()]
        self.provider = self._session.get_providers()[0]

    def __call__(self, inputs: Arrays, signature: str = "serving_default") -> Outputs:
        del signature  # an ONNX file holds one graph
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))


def load(bundle: Bundle, files: Sequence[FileRecord], device: str, threads: int) -> OnnxRuntime:
    """Loads the one file in `files`; MissingError if the provider of the device does not start."""
    if device not in devices():
        raise device_error("onnxruntime", device, devices())
    if device == "cuda" and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # finds CUDA's libraries where pip installs them
    content = bundle.read(files[0])
    vet_onnx(content, files[0].path)
    graph = OnnxRuntime(content, PROVIDERS[device], threads)
    if graph.provider != PROVIDERS[device]:  # it falls back to the CPU without an error
        available = tuple(name for name, provider in PROVIDERS.items() if provider == graph.provider)
        raise device_error("onnxruntime", device, available)
    return graph
