"""The interface of an engine module, and the errors that all engines share.

An engine module gives three functions:

* `version() -> str`
* `devices() -> tuple[str, ...]`: the devices of this machine that it can compute on, the best first; it may take time
* `load(bundle, files, device, threads) -> Graph`: of TFLite and ONNX one file, which `load` reads by `bundle.read`, so
  that its digest is checked; of a SavedModel all its files.

The module of an engine whose row in the table has `bfloat16` gives two more: `has_bfloat16(device) -> bool`, and
`load_bfloat16`, which is `load` for a graph that computes in bfloat16.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import FileRecord
from probrt.runtime.errors import BundleError, MissingError, one_line

Arrays = Mapping[str, npt.NDArray[np.generic]]
Outputs = dict[str, npt.NDArray[np.float32]]


class Graph(Protocol):
    """A loaded file: takes named arrays, returns arrays named `<head>.<quantity>`.

    signature: chooses the graph in a SavedModel; the other formats hold one graph.
    """

    def __call__(self, inputs: Arrays, signature: str = ...) -> Outputs: ...


class EngineModule(Protocol):
    """The functions of an engine module."""

    def version(self) -> str: ...

    def devices(self) -> tuple[str, ...]: ...

    def load(self, bundle: Bundle, files: Sequence[FileRecord], device: str, threads: int) -> Graph: ...


class Bfloat16Module(EngineModule, Protocol):
    """The functions of the module of an engine that computes in bfloat16 where the processor can."""

    def has_bfloat16(self, device: str) -> bool: ...

    def load_bfloat16(self, bundle: Bundle, files: Sequence[FileRecord], device: str, threads: int) -> Graph: ...


def load_error(file: FileRecord, error: BaseException) -> BundleError:
    """Returns the error for a file whose digest is right but that its engine cannot load."""
    return BundleError(f"{file.path}: cannot be loaded ({one_line(error)[:200]}); export the bundle again")


def device_error(engine: str, device: str, available: Sequence[str]) -> MissingError:
    """Returns the error for a device that the user named and that this machine lacks."""
    return MissingError(f"{engine} finds no device {device} here (it has: {', '.join(available)}); see `probrt doctor`")
