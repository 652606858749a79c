"""The table of engines: it drives the choice of an engine, the messages and the documentation.

A third party adds an engine by an entry point in the group `probrt.engines` that names an `Engine`. It runs only
where `--engine` names it, so that installing a package alone changes no answer.
"""

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import FileRecord, RunPrecision
from probrt.runtime.engines.graph import Bfloat16Module, EngineModule, Graph, load_error
from probrt.runtime.errors import MissingError, ProbrtError, one_line

GROUP = "probrt.engines"


@dataclass(frozen=True)
class Engine:
    """One row of the table.

    module: the import path of the engine module (`EngineModule` lists its functions).
    format: of the files that it reads, a key of `formats.FORMATS`.
    needs: the top-level module that must be importable.
    extra: the extra of probrt that installs it; empty for the base install.
    devices: the devices that it may offer; `devices()` of the module returns those of this machine.
    speed: rank by measured throughput, the fastest first.
    start: seconds that importing and starting take.
    words: whether it computes exactly with 32-bit words, as `sampled` files need.
    int8_sequences: whether it runs int8 files of one-dimensional inputs.
    bfloat16: whether it computes float32 files in bfloat16 on processors that can (`graph.Bfloat16Module`).
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
    bfloat16: bool = False

    @property
    def installed(self) -> bool:
        """Whether its library can be imported; does not import it."""
        return importlib.util.find_spec(self.needs) is not None

    @property
    def version(self) -> str:
        """The version of its installed library, by the metadata of its distribution; "unknown" without any."""
        try:
            return importlib.metadata.version(self.needs.replace("_", "-"))
        except importlib.metadata.PackageNotFoundError:  # another distribution brings the module, as onnxruntime-gpu
            names = importlib.metadata.packages_distributions().get(self.needs, [])
            return importlib.metadata.version(names[0]) if names else "unknown"

    @property
    def install(self) -> str:
        """The command that installs it."""
        if self.extra:
            return f"pip install 'probrt[{self.extra}]'"
        return f"pip install --force-reinstall {self.needs.replace('_', '-')}"

    def load_module(self) -> EngineModule:
        """Imports its module; raises MissingError if the library is absent or does not load on this machine."""
        try:
            module: EngineModule = importlib.import_module(self.module)
            return module
        except ImportError as error:
            raise MissingError(f"engine {self.name} cannot run here ({one_line(error)}): {self.install}") from None

    def has_bfloat16(self, device: str) -> bool:
        """Whether it computes in bfloat16 on this device of this machine; imports its module."""
        return self.bfloat16 and self._load_bfloat16_module().has_bfloat16(device)

    def _load_bfloat16_module(self) -> Bfloat16Module:
        module: Bfloat16Module = self.load_module()  # type: ignore[assignment]  # its row promises the functions
        return module

    def load_graph(
        self,
        bundle: Bundle,
        files: Sequence[FileRecord],
        device: str,
        threads: int,
        precision: RunPrecision = "float32",
    ) -> Graph:
        """Loads one file, or the files of a SavedModel.

        precision: the arithmetic of "bfloat16" is the engine's; the other ones are those of the files.
        Raises BundleError that names the file for whatever the engine finds wrong with it, MissingError for an engine
        or a device that is not here.
        """
        load = self._load_bfloat16_module().load_bfloat16 if precision == "bfloat16" else self.load_module().load
        try:
            return load(bundle, files, device, threads)
        except ProbrtError:
            raise
        except Exception as error:  # every engine has exceptions of its own, and damaged files raise any of them
            raise load_error(files[0], error) from error

    @property
    def installation(self) -> str:
        """Names the installed library: where it lies and when it was written; does not import it."""
        spec = importlib.util.find_spec(self.needs)
        origin = spec.origin if spec else None
        return f"{origin} {Path(origin).stat().st_mtime_ns}" if origin and Path(origin).exists() else self.needs


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
        words=False,  # it shifts uint32 as if it were signed, and fuses chains of integer operations into float32
        int8_sequences=False,  # version 2026.4 does not compile the one-dimensional int8 files of earlier exports
        bfloat16=True,
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
    """Returns all engines, fastest first, with those of third parties; raises MissingError if one does not load."""
    table = list(BUILT_IN)
    for entry_point in importlib.metadata.entry_points(group=GROUP):
        try:
            table.append(entry_point.load())
        except Exception as error:  # third-party code may raise anything: the message names its entry point
            raise MissingError(f"entry point {entry_point.name} of {GROUP} does not load: {one_line(error)}") from None
    return tuple(sorted(table, key=lambda engine: engine.speed))
