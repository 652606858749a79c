"""OpenVINO runs ONNX files on the CPU or an Intel GPU."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import FileRecord
from probrt.runtime.bundle.vet_onnx import vet_onnx
from probrt.runtime.engines.graph import Arrays, Outputs, device_error

# Every compiled batch size holds a copy of the weights. Of large files there may be few, of small ones all that
# `round_batch` gives up to 64.
MAX_BYTES = 256 << 20
MIN_SIZES, MAX_SIZES = 4, 24

Shape = tuple[int, ...]


def version() -> str:
    return str(ov.__version__).partition("-")[0]


def devices() -> tuple[str, ...]:
    names = {device.partition(".")[0].lower() for device in ov.Core().available_devices}
    return tuple(device for device in ("gpu", "cpu") if device in names)


def has_bfloat16(device: str) -> bool:
    """Whether a device multiplies in bfloat16; others would do so in software, slower than in float32."""
    capabilities = ov.Core().get_property(device.upper(), "OPTIMIZATION_CAPABILITIES")
    return "BF16" in capabilities


class OpenVino:
    """One ONNX file, compiled per shape of the batch: fixed shapes run up to three times as fast as dynamic ones.

    The first batch and every larger one are compiled as they are. A smaller one is padded: at its first time to the
    next size that is there, because compiling costs more than that, and from then on by less than a quarter.

    hint: of the precision, "f32" or "bf16".
    """

    def __init__(self, content: bytes, device: str, threads: int, hint: str = "f32") -> None:
        self._core = ov.Core()
        self._model = self._core.read_model(content)
        self._outputs = [output.get_any_name() for output in self._model.outputs]
        self._device = device.upper()
        # By default it computes in bfloat16 where the CPU can, which gives different numbers on different machines.
        self._settings = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
        if device == "cpu":
            self._settings["INFERENCE_NUM_THREADS"] = str(threads)
        self._limit = min(max(MAX_BYTES // len(content), MIN_SIZES), MAX_SIZES)
        self._requests: dict[Shape, Any] = {}  # the one used last comes last
        self._padded: set[Shape] = set()

    def __call__(self, inputs: Arrays, signature: str = "serving_default") -> Outputs:
        del signature  # an ONNX file holds one graph
        images = inputs["images"]
        count = len(images)
        shape = self._choose_shape(images.shape)
        if shape[0] > count:
            images = np.concatenate([images, np.repeat(images[-1:], shape[0] - count, axis=0)])
        request = self._requests.pop(shape, None) or self._compile(shape)
        self._requests[shape] = request
        request.infer({**inputs, "images": images}, share_inputs=True)
        # Copied: the request writes its next answer into the same memory.
        return {name: np.array(request.get_tensor(name).data[:count]) for name in self._outputs}

    def _choose_shape(self, shape: Shape) -> Shape:
        """Returns the shape to compute a batch in: a compiled one, or one that is worth compiling."""
        count, *sides = shape
        fitting = min((s for s in self._requests if s[1:] == shape[1:] and s[0] >= count), default=None)
        if fitting is None:
            return shape
        rounded = (round_batch(count), *sides)
        if fitting[0] <= rounded[0]:
            return fitting
        if rounded not in self._padded:
            self._padded.add(rounded)
            return fitting
        return rounded

    def _compile(self, shape: Shape) -> Any:
        while len(self._requests) >= self._limit:
            self._requests.pop(next(iter(self._requests)))
        self._padded.discard(shape)
        model = self._model.clone()
        model.reshape({"images": list(shape)})
        return self._core.compile_model(model, self._device, self._settings).create_infer_request()


def round_batch(count: int) -> int:
    """Returns the smallest number from `count` on that has three significant binary digits: 1 to 8, 10, 12, 14, 16, 20.

    It is less than a quarter larger, and twenty such numbers go up to 64.
    """
    step = 1 << max(0, (count - 1).bit_length() - 3)
    return -(-count // step) * step


def load(bundle: Bundle, files: Sequence[FileRecord], device: str, threads: int) -> OpenVino:
    """Loads the one file in `files`, which computes in float32."""
    return _load(bundle, files[0], device, threads, "f32")


def load_bfloat16(bundle: Bundle, files: Sequence[FileRecord], device: str, threads: int) -> OpenVino:
    """Loads the one file in `files`; it takes and gives float32, and multiplies and adds in bfloat16 within."""
    return _load(bundle, files[0], device, threads, "bf16")


def _load(bundle: Bundle, file: FileRecord, device: str, threads: int, hint: str) -> OpenVino:
    if device not in devices():
        raise device_error("openvino", device, devices())
    content = bundle.read(file)
    vet_onnx(content, file.path)
    return OpenVino(content, device, threads, hint)
