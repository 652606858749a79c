"""What runs a graph: one module per engine, one table that drives the choice, the messages and the docs.

An engine module gives three functions:

* `version() -> str`
* `devices() -> tuple[str, ...]`: what it can compute on here, the best first; importing it may cost time
* `load(bundle, files, device, threads) -> Graph`: for a graph format one file, already part of the
  manifest, whose digest `load` checks by reading it with `bundle.read`; for a SavedModel all its files.

A third party adds an engine by an entry point in the group `probrt.engines` that names an `Engine`; it
runs only where `--engine` names it, so that installing a package changes no answer by itself.
"""

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import FileRecord
from probrt.runtime.errors import BundleError, MissingError, one_line

GROUP = "probrt.engines"

Arrays = Mapping[str, npt.NDArray[np.generic]]


class Graph(Protocol):
    """A loaded file: named arrays in, named arrays out; for a SavedModel `signature` chooses the graph."""

    def __call__(self, inputs: Arrays, signature: str = ...) -> dict[str, npt.NDArray[np.float32]]: ...


class EngineModule(Protocol):
    """The verbs of an engine module."""

    def version(self) -> str: ...

    def devices(self) -> tuple[str, ...]: ...

    def load(self, bundle: Bundle, files: Sequence[FileRecord], device: str, threads: int) -> Graph: ...


@dataclass(frozen=True)
class Engine:
    """One row of the table.

    needs: the top-level module that has to be importable; extra: what brings it ("" for the base install).
    speed: place in the order of measured throughput, lowest first; start: seconds of import and start.
    devices: names that it may offer; `devices()` of the module says which are here.
    words: whether it computes with 32-bit words exactly, as `sampled` files need.
    int8_sequences: whether it runs int8 files of one-dimensional inputs.
    """

    name: str
    module: str
    format: str
    needs: str
    extra: str
    devices: tuple[str, ...]
    speed: int
    start: float
    words: bool = True
    int8_sequences: bool = True

    @property
    def installed(self) -> bool:
        """Whether its library can be imported, without importing it."""
        return importlib.util.find_spec(self.needs) is not None

    @property
    def install(self) -> str:
        """The command that brings it."""
        return f"pip install 'probrt[{self.extra}]'" if self.extra else "pip install --force-reinstall probrt"

    def load_module(self) -> EngineModule:
        """Its module; MissingError if the library is not there or does not load here."""
        try:
            module: EngineModule = importlib.import_module(self.module)
            return module
        except ImportError as error:
            raise MissingError(f"engine {self.name} cannot run here ({one_line(error)}): {self.install}") from None


BUILT_IN = (
    Engine(
        "openvino",
        "probrt.runtime.engines.openvino",
        "onnx",
        "openvino",
        "openvino",
        ("cpu", "gpu"),
        1,
        0.6,
        words=False,  # it shifts uint32 as if it had a sign, and fuses integer chains into float32
        int8_sequences=False,  # 2026.4 does not compile quantised convolutions of one dimension
    ),
    Engine("litert", "probrt.runtime.engines.litert", "tflite", "ai_edge_litert", "", ("cpu", "gpu"), 2, 0.15),
    Engine(
        "onnxruntime",
        "probrt.runtime.engines.onnxruntime",
        "onnx",
        "onnxruntime",
        "onnx",
        ("cuda", "directml", "coreml", "cpu"),
        3,
        0.25,
    ),
    Engine(
        "tensorflow",
        "probrt.runtime.engines.tensorflow",
        "savedmodel",
        "tensorflow",
        "tensorflow",
        ("cuda", "cpu"),
        4,
        3.5,
    ),
)


def engines() -> tuple[Engine, ...]:
    """All engines, those of third parties too, fastest first; MissingError for one that does not load."""
    import importlib.metadata

    found = list(BUILT_IN)
    for point in importlib.metadata.entry_points(group=GROUP):
        try:
            found.append(point.load())
        except Exception as error:  # a third party's fault, named with its entry point
            raise MissingError(f"entry point {point.name} of {GROUP} does not load: {one_line(error)}") from None
    return tuple(sorted(found, key=lambda engine: engine.speed))


def damaged(file: FileRecord, error: BaseException) -> BundleError:
    """A file whose digest is right but that its engine does not take."""
    return BundleError(f"{file.path}: cannot be loaded ({one_line(error)[:200]}); export the bundle again")


def absent_device(engine: str, device: str, here: Sequence[str]) -> MissingError:
    """A device asked for by name that is not here."""
    return MissingError(f"{engine} finds no device {device} here (it has: {', '.join(here)}); see `probrt doctor`")
