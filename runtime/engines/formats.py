"""The table of file formats: how the files of each format answer a request.

The files of a format answer in up to three variants, `mean`, `draws` and `sampled`. A `Source` per variant decides
which calls of a graph answer a request, and makes them. A new format needs a writer, an engine and a row of `FORMATS`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import FileRecord, Manifest, PosteriorRecord, Variant
from probrt.runtime.engines.graph import Graph, Outputs
from probrt.runtime.engines.outputs import expected_outputs

FIRST_DRAWS = 8

Images = npt.NDArray[np.float32]
Files = tuple[FileRecord, ...]


class CannotAnswer(Exception):
    """The files cannot honour a request; the message says why, as the end of a sentence."""


@dataclass(frozen=True)
class Draws:
    """The draws of one seed at the positions `start` to `start + count - 1`."""

    seed: int
    start: int
    count: int


@dataclass(frozen=True)
class Call:
    """One call of a graph.

    files: what the engine loads as one graph.
    draws: what the call answers for; None is the posterior mean.
    """

    files: Files
    draws: Draws | None


class Source(ABC):
    """How the files of a format answer in one variant.

    in_chunks: whether the answers of several calls are combined into one; otherwise every answer is complete.
    needs_words: whether the engine has to compute exactly with 32-bit words.
    """

    variant: ClassVar[Variant]
    in_chunks: ClassVar[bool] = False
    needs_words: ClassVar[bool] = False

    def find_files(self, bundle: Bundle, format: str, precision: str) -> Files:
        """Returns the files that answer in this variant, in the order of their draws."""
        return tuple(bundle.files(format, self.variant, precision))

    @abstractmethod
    def plan_calls(self, files: Files, wanted: Draws | None, posterior: PosteriorRecord | None) -> tuple[Call, ...]:
        """Returns the calls that answer for the draws `wanted`, which start at 0; None is the posterior mean.

        Raises CannotAnswer where the files cannot give these draws.
        """

    def plan_adaptive_calls(self, calls: tuple[Call, ...]) -> tuple[Call, ...]:
        """Returns the calls of a run that stops as soon as an image has enough draws; `calls` gives all draws."""
        return calls

    def plan_trial(self, call: Call) -> Call:
        """Returns a cheap call that shows whether the graph of a call works."""
        return call

    def expected_outputs(self, manifest: Manifest, call: Call) -> Mapping[str, Sequence[int | None]]:
        """Returns the outputs that a call must answer by name: their shapes without the batch."""
        return expected_outputs(manifest, call.files[0], self.variant)

    @abstractmethod
    def run(self, graph: Graph, images: Images, draws: Draws | None) -> Outputs:
        """Makes one call for images [batch, *input.shape]; returns arrays named `<head>.<quantity>`."""


class MeanFile(Source):
    """One file that holds the posterior mean."""

    variant: ClassVar[Variant] = "mean"

    def plan_calls(self, files: Files, wanted: Draws | None, posterior: PosteriorRecord | None) -> tuple[Call, ...]:
        return (Call(files, None),)

    def run(self, graph: Graph, images: Images, draws: Draws | None) -> Outputs:
        return graph({"images": images}, "serving_default")


class MeanSignature(Source):
    """The signature `mean`, which every SavedModel has."""

    variant: ClassVar[Variant] = "mean"

    def find_files(self, bundle: Bundle, format: str, precision: str) -> Files:
        return tuple(bundle.files(format, None, precision))

    def plan_calls(self, files: Files, wanted: Draws | None, posterior: PosteriorRecord | None) -> tuple[Call, ...]:
        return (Call(files, None),)

    def run(self, graph: Graph, images: Images, draws: Draws | None) -> Outputs:
        return graph({"images": images}, "mean")


class BankFiles(Source):
    """Files that each hold a fixed chunk of the bank."""

    variant: ClassVar[Variant] = "draws"
    in_chunks: ClassVar[bool] = True

    def plan_calls(self, files: Files, wanted: Draws | None, posterior: PosteriorRecord | None) -> tuple[Call, ...]:
        assert wanted is not None
        assert posterior is not None
        if wanted.seed != posterior.seed:
            raise CannotAnswer(f"its bank answers for seed {posterior.seed} only")
        chunks = [(file, file.draws) for file in files if file.draws is not None]
        possible = list(accumulate(count for _, (_, count) in chunks))
        if wanted.count not in possible:
            raise CannotAnswer(f"its bank gives --samples {', '.join(map(str, possible))}, not {wanted.count}")
        needed = chunks[: possible.index(wanted.count) + 1]
        return tuple(Call((file,), Draws(wanted.seed, start, count)) for file, (start, count) in needed)

    def run(self, graph: Graph, images: Images, draws: Draws | None) -> Outputs:
        return graph({"images": images}, "serving_default")


class SeededFile(Source):
    """One file that makes a chunk of draws from a seed and a start."""

    variant: ClassVar[Variant] = "sampled"
    in_chunks: ClassVar[bool] = True
    needs_words: ClassVar[bool] = True

    def plan_calls(self, files: Files, wanted: Draws | None, posterior: PosteriorRecord | None) -> tuple[Call, ...]:
        assert wanted is not None
        assert posterior is not None
        chunk = files[0].draws[1] if files[0].draws else posterior.chunk
        if wanted.count % chunk:
            raise CannotAnswer(
                f"its sampled file gives multiples of {chunk}, not {wanted.count} "
                "(the tensorflow engine gives any number)"
            )
        return tuple(Call(files[:1], Draws(wanted.seed, start, chunk)) for start in range(0, wanted.count, chunk))

    def run(self, graph: Graph, images: Images, draws: Draws | None) -> Outputs:
        assert draws is not None
        inputs = {"images": images, "seed": _int32(draws.seed), "start": _int32(draws.start)}
        return graph(inputs, "serving_default")


class SampleSignature(Source):
    """The signature `sample` of a SavedModel: one call gives any number of draws of any seed, from position 0."""

    variant: ClassVar[Variant] = "sampled"
    needs_words: ClassVar[bool] = True

    def plan_calls(self, files: Files, wanted: Draws | None, posterior: PosteriorRecord | None) -> tuple[Call, ...]:
        return (Call(files, wanted),)

    def plan_adaptive_calls(self, calls: tuple[Call, ...]) -> tuple[Call, ...]:
        """Doubles the number of draws from call to call, because the signature always starts at position 0."""
        (call,) = calls
        assert call.draws is not None
        counts = [FIRST_DRAWS]
        while counts[-1] < call.draws.count:
            counts.append(2 * counts[-1])
        return tuple(Call(call.files, replace(call.draws, count=min(count, call.draws.count))) for count in counts)

    def plan_trial(self, call: Call) -> Call:
        assert call.draws is not None
        return replace(call, draws=replace(call.draws, count=min(2, call.draws.count)))

    def run(self, graph: Graph, images: Images, draws: Draws | None) -> Outputs:
        assert draws is not None
        inputs = {"images": images, "num_samples": _int32(draws.count), "seed": _int32(draws.seed)}
        return graph(inputs, "sample")


class DrawSignature(SampleSignature):
    """The signature `draws` of a SavedModel: each head's mean under every draw, [batch, draws, …], and the novelty."""

    def expected_outputs(self, manifest: Manifest, call: Call) -> Mapping[str, Sequence[int | None]]:
        assert call.draws is not None
        means = {f"{head.name}.mean": [call.draws.count, *head.outputs["mean"]] for head in manifest.heads}
        return means | (manifest.novelty.outputs if manifest.novelty else {})

    def run(self, graph: Graph, images: Images, draws: Draws | None) -> Outputs:
        assert draws is not None
        inputs = {"images": images, "num_samples": _int32(draws.count), "seed": _int32(draws.seed)}
        return graph(inputs, "draws")


Sources = Mapping[Variant, Source]

_GRAPH_FILES: Final[Sources] = {"mean": MeanFile(), "draws": BankFiles(), "sampled": SeededFile()}
FORMATS: Final[Mapping[str, Sources]] = {
    "tflite": _GRAPH_FILES,
    "onnx": _GRAPH_FILES,
    "savedmodel": {"mean": MeanSignature(), "sampled": SampleSignature()},
}


def _int32(value: int) -> npt.NDArray[np.int32]:
    return np.array([value], np.int32)
