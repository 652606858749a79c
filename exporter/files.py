"""Every file of a bundle, written and listed."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from probrt.exporter import cut, graphs, savedmodel
from probrt.exporter import tf_serving as serving
from probrt.exporter.constants import frozen
from probrt.exporter.formats import GraphSpec
from probrt.exporter.onnx_convert import onnx
from probrt.exporter.onnx_convert import with_metadata as onnx_with_metadata
from probrt.exporter.tflite_convert import joined, tflite
from probrt.exporter.tflite_convert import with_metadata as tflite_with_metadata
from probrt.runtime.bundle.manifest import FileRecord, HeadRecord, PosteriorRecord
from probrt.trainer.model import Model

CORE = "probrt"


def expected_bytes(model: Model, graphs: Sequence[GraphSpec], draws: int) -> int:
    """About how many bytes these files will take: their weights, which are most of a file that is worth asking."""
    drawn = sum(math.prod(weight.shape) for weight in model.weights)
    parameters = sum(math.prod(variable.shape) for member in model.members for variable in member.network.variables)
    fixed = parameters - sum(math.prod(one.shape) for weight in model.weights for one in weight.parameters.values())
    # A draw of an ensemble is one member's.
    values = {"mean": drawn + fixed, "draws": draws * drawn / len(model.members) + fixed, "sampled": parameters}
    return sum(int(values[graph.variant] * graph.kind.bytes) for graph in graphs)


@dataclass(frozen=True)
class BundleWriter:
    """What the files of one bundle are made of.

    images: representative inputs [count, *input.shape], for int8. doing: told of each step.
    """

    model: Model
    heads: Sequence[HeadRecord]
    posterior: PosteriorRecord | None
    images: np.ndarray
    folder: Path
    doing: Callable[[str], None]

    def saved_model(self) -> list[FileRecord]:
        """The SavedModel's files."""
        self.doing("SavedModel")
        savedmodel.save(self.model, self.posterior, self.folder)
        serving.write(self.model, self.posterior, self.images, self.folder)
        return [
            self._listed(
                path.relative_to(self.folder).as_posix(), "savedmodel", "sampled" if self.posterior else "mean"
            )
            for path in sorted(path for path in self.folder.rglob("*") if path.is_file())
        ]

    def graphs(self, chosen: Sequence[GraphSpec]) -> list[FileRecord]:
        """The graph files; each function is traced and frozen once for all its formats and precisions."""
        files = []
        for variant in dict.fromkeys(graph.variant for graph in chosen):
            same = [graph for graph in chosen if graph.variant == variant]
            chunks = range(0, len(self.posterior.order), self.posterior.chunk) if variant == "draws" else [None]
            for number, first in enumerate(chunks):
                self.doing(same[0].name(number if first is not None else None).partition(".")[0])
                function = frozen(self._function(variant, first))
                converted: dict[str, Any] = {}
                for graph in same:
                    name = graph.name(number if first is not None else None)
                    draws = (
                        None if first is None else (first, min(self.posterior.chunk, len(self.posterior.order) - first))
                    )
                    self.doing(name)
                    (self.folder / name).write_bytes(self._content(graph, function, converted, name, draws))
                    files.append(self._listed(name, graph.format, variant, graph.kind.precision, draws))
        return files

    def _function(self, variant: str, first: int | None) -> Callable[..., graphs.Outputs]:
        if variant == "mean":
            return graphs.mean_function(self.model)
        if variant == "sampled":
            return graphs.sampled_function(self.model, self.posterior)
        indices = self.posterior.order[first : first + self.posterior.chunk]
        return graphs.draws_function(self.model, self.posterior.seed, indices)

    def _content(
        self,
        graph: GraphSpec,
        function: Callable[..., Any],
        converted: dict[str, Any],
        name: str,
        draws: tuple[int, int] | None,
    ) -> bytes:
        """The bytes of one file; `converted` keeps the function's ONNX model, where other precisions start too."""
        precision, core = graph.kind.precision, self._core(graph, draws)
        if graph.format == "tflite":
            if graph.kind.whole:
                content = tflite(function, name, precision)
            else:
                content = joined(tflite(self._parts.body, name, precision, self.images), tflite(self._parts.tail, name))
            return tflite_with_metadata(content, CORE, core)
        from probrt.exporter import onnx_quantize as quantised

        if graph.kind.whole:
            if "onnx" not in converted:
                converted["onnx"] = onnx(function, name)
            model = copy.deepcopy(converted["onnx"])
            if precision == "float16":
                quantised.halved(model)
        else:
            body, tail = onnx(self._parts.body, name), onnx(self._parts.tail, name)
            if precision == "int8":
                body = quantised.fitted(body, self.images)
            else:
                quantised.eighth(body)
            model = quantised.joined(body, tail, self._parts.features)
        return onnx_with_metadata(model, CORE, core)

    @cached_property
    def _parts(self) -> cut.Parts:
        parts = cut.mean_parts(self.model)
        return cut.Parts(frozen(parts.body), frozen(parts.tail), parts.features)

    def _core(self, graph: GraphSpec, draws: tuple[int, int] | None) -> bytes:
        """What a reader of the file alone has to know: inputs, labels, outputs, which draws."""
        core = {
            "model": self.model.name,
            "input": self.model.input,
            "heads": list(self.heads),
            "variant": graph.variant,
            "precision": graph.kind.precision,
            "draws": draws,
            "seed": self.posterior.seed if self.posterior and draws else None,
        }
        return msgspec.json.encode(core)

    def _listed(
        self, name: str, format: str, variant: str, precision: str = "float32", draws: tuple[int, int] | None = None
    ) -> FileRecord:
        data = (self.folder / name).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        return FileRecord(
            path=name,
            bytes=len(data),
            sha256=digest,
            format=format,
            variant=variant,
            precision=precision,
            draws=draws,
        )
