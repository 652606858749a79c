"""OpenVINO (reads the ONNX files) on the CPU or an Intel GPU."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import openvino as ov

from probrt.runtime.bundle import Bundle
from probrt.runtime.engines import Arrays, absent_device, damaged
from probrt.runtime.manifest import File


def version() -> str:
    return str(ov.__version__).partition("-")[0]


def devices() -> tuple[str, ...]:
    names = {device.partition(".")[0].lower() for device in ov.Core().available_devices}
    return tuple(device for device in ("gpu", "cpu") if device in names)


class OpenVino:
    """One compiled ONNX file."""

    def __init__(self, content: bytes, device: str, threads: int) -> None:
        core = ov.Core()
        # Left alone it computes in bfloat16 where the CPU has it: other numbers on other machines.
        settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if device == "cpu":
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        self._request = core.compile_model(core.read_model(content), device.upper(), settings).create_infer_request()
        self._outputs = [output.get_any_name() for output in self._request.model_outputs]

    def __call__(self, inputs: Arrays, signature: str = "serving_default") -> dict[str, npt.NDArray[np.float32]]:
        del signature  # an ONNX file holds one graph
        self._request.infer(dict(inputs), share_inputs=True)
        # Copied: the request writes its next answer into the same memory.
        return {name: np.array(self._request.get_tensor(name).data) for name in self._outputs}


def load(bundle: Bundle, files: Sequence[File], device: str, threads: int) -> OpenVino:
    """A graph of the one file in `files`."""
    if device not in devices():
        raise absent_device("openvino", device, devices())
    content = bundle.read(files[0])
    try:
        return OpenVino(content, device, threads)
    except RuntimeError as error:
        raise damaged(files[0], error) from None
