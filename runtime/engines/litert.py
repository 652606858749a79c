"""LiteRT runs TFLite files: on the CPU by its interpreter, on a GPU by its CompiledModel."""

import contextlib
import ctypes.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ai_edge_litert
import numpy as np
from ai_edge_litert.interpreter import Interpreter

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import FileRecord
from probrt.runtime.engines.graph import Arrays, Graph, Outputs, device_error
from probrt.runtime.hush import hush

SMALL = 4


def version() -> str:
    import importlib.metadata

    return importlib.metadata.version("ai-edge-litert")


def devices() -> tuple[str, ...]:
    """Returns `gpu` too where an accelerator and a driver are installed; only loading a file shows that it works."""
    accelerator = next(Path(ai_edge_litert.__path__[0]).glob("libLiteRt*Accelerator.*"), None)
    driver = not sys.platform.startswith("linux") or (
        ctypes.util.find_library("vulkan") and any(Path(path).exists() for path in ("/dev/dri", "/dev/nvidia0"))
    )
    return ("gpu", "cpu") if accelerator and driver else ("cpu",)


class LiteRT:
    """One TFLite file, run by the interpreter.

    Another batch size makes an interpreter allocate its tensors anew, which takes as long as a few small images. So
    a size of up to SMALL images that comes back between others gets an interpreter of its own, with its copy of the
    weights.
    """

    def __init__(self, content: bytes, threads: int) -> None:
        self._content = content
        self._threads = threads
        self._any_size = _Interpreter(content, threads)
        self._by_size: dict[int, _Interpreter] = {}
        self._returns: dict[int, int] = {}  # how often a small size came after another one
        self._latest = 0

    def __call__(self, inputs: Arrays, signature: str = "serving_default") -> Outputs:
        return self._choose(len(inputs["images"])).run(inputs, signature)

    def _choose(self, count: int) -> "_Interpreter":
        if count in self._by_size:
            return self._by_size[count]
        if count <= SMALL and self._latest not in (0, count):
            self._returns[count] = self._returns.get(count, 0) + 1
            if self._returns[count] > 1:
                self._by_size[count] = _Interpreter(self._content, self._threads)
                return self._by_size[count]
        self._latest = count
        return self._any_size


class _Interpreter:
    """An interpreter with its runners, by signature."""

    def __init__(self, content: bytes, threads: int) -> None:
        # Loaded from bytes with a checked digest: a truncated file, loaded by its path, crashes the process.
        with hush():
            self._interpreter = Interpreter(model_content=content, num_threads=threads)
        self._runners = {}
        self._ran = False
        for name in self._interpreter.get_signature_list():
            self._runners[name] = self._interpreter.get_signature_runner(name)

    def run(self, inputs: Arrays, signature: str) -> Outputs:
        answer: Outputs
        with contextlib.nullcontext() if self._ran else hush():
            answer = self._runners[signature](**inputs)
        self._ran = True
        return answer


class Compiled:
    """One TFLite file on an accelerator, in float32; compiled once, resized when the shape of the batch changes."""

    def __init__(self, content: bytes, accelerator: str) -> None:
        from ai_edge_litert.compiled_model import CompiledModel, GpuOptions, HardwareAccelerator, Options

        # Operations that the GPU lacks run on the CPU. Half precision would not give the answers that export checked.
        accelerators = HardwareAccelerator[accelerator] | HardwareAccelerator.CPU
        options = Options(hardware_accelerators=accelerators, gpu_options=GpuOptions(enforce_f32=True))
        with hush():
            self._model = CompiledModel.from_buffer(content, options=options)
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._buffers: tuple[dict[str, Any], dict[str, Any]] = {}, {}

    def __call__(self, inputs: Arrays, signature: str = "serving_default") -> Outputs:
        shapes = {name: values.shape for name, values in inputs.items()}
        with hush():
            if shapes != self._shapes:
                self._resize(signature, shapes)
            input_buffers, output_buffers = self._buffers
            for name, values in inputs.items():
                input_buffers[name].write(np.ascontiguousarray(values))
            self._model.run_by_name(signature, input_buffers, output_buffers)
            answer: Outputs = {}
            for name, details in self._model.get_output_tensor_details(signature).items():
                shape = tuple(details["shape"])
                answer[name] = output_buffers[name].read(int(np.prod(shape)), np.float32).reshape(shape)
        return answer

    def _resize(self, signature: str, shapes: dict[str, tuple[int, ...]]) -> None:
        model = self._model
        for name, shape in shapes.items():
            if tuple(model.get_input_tensor_details(signature)[name]["shape"]) != shape:
                model.resize_input_tensor_by_name(signature, name, shape, strict=False)
        names = model.get_signature_list()[signature]
        self._buffers = (
            {name: model.create_input_buffer_by_name(signature, name) for name in names["inputs"]},
            {name: model.create_output_buffer_by_name(signature, name) for name in names["outputs"]},
        )
        self._shapes = shapes


def load(bundle: Bundle, files: Sequence[FileRecord], device: str, threads: int) -> Graph:
    """Loads the one file in `files`; MissingError if a GPU is asked for and none works."""
    # Looking for a GPU starts processes (ldconfig, a compiler) in search of Vulkan.
    if device != "cpu" and device not in devices():
        raise device_error("litert", device, devices())
    content = bundle.read(files[0])
    if device == "cpu":
        return LiteRT(content, threads)
    LiteRT(content, threads)  # raises on a damaged file, where CompiledModel would end the process
    with hush():
        try:
            return Compiled(content, "GPU")
        except (ValueError, RuntimeError):
            pass  # not raised here: the exception would keep alive an object that prints when it is freed
    raise device_error("litert", device, ("cpu",))
