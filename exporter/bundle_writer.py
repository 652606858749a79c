"""Writes every file of a bundle and lists it for the manifest."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from probrt.exporter import graphs, onnx_float16, tflite_float16, tflite_metadata
from probrt.exporter.drawn_constants import Draws
from probrt.exporter.exportable import Exportable
from probrt.exporter.formats import GraphSpec
from probrt.exporter.graph_files import ChunkTemplate, GraphFiles
from probrt.exporter.int8_files import Int8Files
from probrt.exporter.onnx_convert import serialize_with_metadata
from probrt.exporter.savedmodel import write_saved_model
from probrt.exporter.steps import Steps, list_kinds
from probrt.exporter.tf_serving import write_serving_files
from probrt.exporter.tflite_convert import add_metadata
from probrt.runtime.bundle.manifest import FileRecord, Format, HeadRecord, PosteriorRecord, Precision, Variant

METADATA = "probrt"


def estimate_bytes(model: Exportable, specs: Sequence[GraphSpec], draws: int) -> int:
    """Estimates the size of these files in bytes: that of their weights, which are most of a large file."""
    drawn = sum(math.prod(weight.shape) for weight in model.weights)
    parameters = sum(math.prod(variable.shape) for member in model.members for variable in member.network.variables)
    fixed = parameters - sum(
        math.prod(parameter.shape) for weight in model.weights for parameter in weight.parameters.values()
    )
    # A draw of an ensemble is one member's.
    values = {"mean": drawn + fixed, "draws": draws * drawn / len(model.members) + fixed, "sampled": parameters}
    return sum(int(values[graph.variant] * graph.precision.weight_bytes) for graph in specs)


@dataclass(frozen=True)
class GraphPart:
    """One graph of a variant: the whole of it, or one chunk of the bank.

    make: traces it. chunk: its position among the chunks. draws: the first position of the bank, and how many.
    compute_draws: computes the weights of these draws; None where no other chunk has the same graph.
    """

    make: Callable[[], graphs.GraphFunction]
    chunk: int | None = None
    draws: tuple[int, int] | None = None
    compute_draws: Callable[[], Draws] | None = None


@dataclass(frozen=True, kw_only=True)
class BundleWriter:
    """What the files of one bundle are made of.

    images: representative inputs [count, *input.shape], for int8 and warm-up requests.
    steps: takes the name of each file before it is written. int8_files: makes those in int8.
    """

    model: Exportable
    heads: Sequence[HeadRecord]
    posterior: PosteriorRecord | None
    images: npt.NDArray[np.float32]
    folder: Path
    steps: Steps
    int8_files: Int8Files

    def write_saved_model(self) -> list[FileRecord]:
        """Writes the SavedModel and the files that TensorFlow Serving reads beside it."""
        self.steps.begin("SavedModel", "savedmodel")
        others = self._list_paths()
        write_saved_model(self.model, self.posterior, self.folder)
        write_serving_files(self.model, self.posterior, self.images, self.folder)
        variant: Variant = "sampled" if self.posterior else "mean"
        paths = sorted(self._list_paths() - others)
        return [self._record(path.relative_to(self.folder).as_posix(), "savedmodel", variant) for path in paths]

    def write_graphs(self, specs: Sequence[GraphSpec]) -> list[FileRecord]:
        """Writes the graph files; traces and converts each graph once for all its precisions, and for equal chunks."""
        records = []
        for variant in dict.fromkeys(graph.variant for graph in specs):
            same_variant = [graph for graph in specs if graph.variant == variant]
            template = ChunkTemplate()
            for part in self._parts(variant):
                copied = bool(part.chunk and part.compute_draws)
                name = same_variant[0].file_name(part.chunk).partition(".")[0]
                self.steps.begin(name, "derive" if copied else "trace")
                files = GraphFiles(part.make, part.compute_draws, template)
                for graph, kind in zip(same_variant, list_kinds(same_variant, copied), strict=True):
                    name = graph.file_name(part.chunk)
                    self.steps.begin(name, kind)
                    content = self._convert(graph, files, name, part.draws)
                    if content is None:
                        continue
                    (self.folder / name).write_bytes(content)
                    records.append(self._record(name, graph.format, variant, graph.precision.name, part.draws))
                if part.chunk == 0 and part.compute_draws:
                    template = files.make_template(self.model.input)
        return records

    def _list_paths(self) -> set[Path]:
        return {path for path in self.folder.rglob("*") if path.is_file()}

    def _parts(self, variant: Variant) -> Iterator[GraphPart]:
        """Yields the graphs of a variant; only `mean` exists without random weights."""
        if variant == "mean":
            yield GraphPart(lambda: graphs.make_mean_function(self.model))
        posterior = self.posterior
        if posterior is None:
            return
        if variant == "sampled":
            yield GraphPart(lambda: graphs.make_sampled_function(self.model, posterior))
        if variant == "draws":
            for chunk, first in enumerate(range(0, len(posterior.order), posterior.chunk)):
                indices = posterior.order[first : first + posterior.chunk]
                make = functools.partial(graphs.make_draws_function, self.model, posterior.seed, indices, first == 0)
                # A member of an ensemble has constants of its own.
                shared = len(self.model.members) == 1 and len(posterior.order) > posterior.chunk
                compute = functools.partial(graphs.compute_draws, self.model, posterior.seed, indices)
                yield GraphPart(make, chunk, (first, len(indices)), compute if shared else None)

    def _convert(self, graph: GraphSpec, files: GraphFiles, name: str, draws: tuple[int, int] | None) -> bytes | None:
        """Returns the bytes of one graph file; None if no layer can be in int8."""
        metadata = self._metadata(graph, draws)
        if graph.format == "tflite":
            content = self._convert_to_tflite(graph, files, name, draws)
            if content is None:
                return None
            standard = tflite_metadata.write_metadata(
                content,
                name=self.model.name,
                description=_describe_variant(graph.variant, draws),
                input=self.model.input,
                heads=self.heads,
            )
            content = add_metadata(content, {METADATA: metadata, tflite_metadata.NAME: standard})
            return tflite_metadata.append_labels(content, self.heads)
        model = self._convert_to_onnx(graph, files, name, draws)
        return None if model is None else serialize_with_metadata(model, METADATA, metadata)

    def _convert_to_tflite(
        self, graph: GraphSpec, files: GraphFiles, name: str, draws: tuple[int, int] | None
    ) -> bytes | None:
        content = files.convert_to_tflite(name)
        if graph.precision.name == "float16":
            return tflite_float16.store_weights_in_float16(content)
        if graph.precision.whole_graph:
            return content
        quantized: bytes | None = self.int8_files.quantize(content, graph, draws and draws[1])
        return quantized

    def _convert_to_onnx(
        self, graph: GraphSpec, files: GraphFiles, name: str, draws: tuple[int, int] | None
    ) -> Any | None:
        model = files.copy_onnx(name)
        if graph.precision.name == "float16":
            onnx_float16.store_weights_in_float16(model)
        if graph.precision.whole_graph:
            return model
        return self.int8_files.quantize(model, graph, draws and draws[1])

    def _metadata(self, graph: GraphSpec, draws: tuple[int, int] | None) -> bytes:
        """Describes a file for readers that have nothing else: input, heads with labels and outputs, draws; as JSON."""
        return msgspec.json.encode(
            {
                "model": self.model.name,
                "input": self.model.input,
                "heads": [_describe_head(head) for head in self.heads],
                "variant": graph.variant,
                "precision": graph.precision.name,
                "draws": draws,
                "seed": self.posterior.seed if self.posterior and draws else None,
            }
        )

    def _record(
        self,
        name: str,
        format: Format,
        variant: Variant,
        precision: Precision = "float32",
        draws: tuple[int, int] | None = None,
    ) -> FileRecord:
        data = (self.folder / name).read_bytes()
        return FileRecord(
            path=name,
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            format=format,
            variant=variant,
            precision=precision,
            draws=draws,
        )


def _describe_variant(variant: Variant, draws: tuple[int, int] | None) -> str:
    """Says what a file's answers are over."""
    if variant == "mean":
        return "one pass at the posterior mean"
    if draws is None:
        return "draws that the graph makes from seed and start"
    return f"{draws[1]} draws of the bank from position {draws[0]}, to be combined with those of the other files"


def _describe_head(head: HeadRecord) -> dict[str, Any]:
    """Returns the manifest's record without `kind`: so files equal those of versions that did not have it."""
    return {name: value for name, value in msgspec.to_builtins(head).items() if name != "kind"}
