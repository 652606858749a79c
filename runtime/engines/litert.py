"""LiteRT (TFLite files) on the CPU."""

import contextlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter

from probrt.runtime.bundle import Bundle
from probrt.runtime.engines import Arrays, absent_device, damaged
from probrt.runtime.hush import hush
from probrt.runtime.manifest import File


def version() -> str:
    import importlib.metadata

    return importlib.metadata.version("ai-edge-litert")


def devices() -> tuple[str, ...]:
    return ("cpu",)


class LiteRT:
    """One TFLite file."""

    def __init__(self, content: bytes, threads: int) -> None:
        # From bytes whose digest was checked: loading by path crashes the process on truncated files.
        with hush():
            self._interpreter = Interpreter(model_content=content, num_threads=threads)
        self._runners = {}
        self._ran = False
        for name in self._interpreter.get_signature_list():
            self._runners[name] = self._interpreter.get_signature_runner(name)

    def __call__(self, inputs: Arrays, signature: str = "serving_default") -> dict[str, npt.NDArray[np.float32]]:
        answer: dict[str, npt.NDArray[np.float32]]
        with contextlib.nullcontext() if self._ran else hush():
            answer = self._runners[signature](**inputs)
        self._ran = True
        return answer


def load(bundle: Bundle, files: Sequence[File], device: str, threads: int) -> LiteRT:
    """A graph of the one file in `files`."""
    if device != "cpu":
        raise absent_device("litert", device, devices())
    content = bundle.read(files[0])
    try:
        return LiteRT(content, threads)
    except (ValueError, RuntimeError) as error:
        raise damaged(files[0], error) from None
