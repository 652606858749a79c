"""The first load of a graph: once in a process of its own, so that a hostile one costs a line and no hang.

Vetting tells what a graph may do, not that it ends, that its engine survives it, or that it answers what the manifest
states. So each file runs once, on one image, under limits of time and memory, before this process loads it. The user's
cache remembers files that passed (`bundle/passed_files.py`); files of a bundle whose signature was verified, and those
that this user exported, count as passed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import numpy as np

from probrt.runtime.bundle.arrays import store_array
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import FileRecord, Variant
from probrt.runtime.bundle.passed_files import make_key, read_passed, remember_passed
from probrt.runtime.engines.formats import FORMATS, Call, Draws, Files, Source
from probrt.runtime.engines.graph import Arrays, Outputs
from probrt.runtime.engines.outputs import check_outputs
from probrt.runtime.engines.probe import Probe
from probrt.runtime.engines.probe_process import ProbeCall, ProbeResponse
from probrt.runtime.engines.table import Engine
from probrt.runtime.errors import BundleError

# Computing time of a small file, and what is added for large ones: reading them at 20 MB/s, a billion multiplications
# a second if every weight acted at every position. The largest is a limit of patience.
SECONDS = 10
_BYTES_PER_SECOND = 20_000_000
_MULTIPLICATIONS_PER_SECOND = 1_000_000_000
_MOST_SECONDS = 300
# Memory of a small file, and what is added for each byte of the files and of the image.
BYTES = 2 << 30
_BYTES_PER_FILE_BYTE = 8
_BYTES_PER_IMAGE_BYTE = 256
# What a side of any size is in a trial, by the number of such sides.
_FREE_SIDES = {1: 64, 2: 64, 3: 32}
_TRUSTED = "made or signed"


@dataclass(frozen=True)
class TrialGraph:
    """A graph to try: how its format answers, and one call of it."""

    source: Source
    call: Call

    @property
    def name(self) -> str:
        """The file that messages name."""
        return graph_name(self.call.files)

    @property
    def label(self) -> str:
        """The file and its variant: what tells one graph of a bundle from another."""
        return f"{self.name} {self.source.variant}"


class Trial:
    """Tries some graphs of a bundle on one engine; the process starts at once and ends with the block.

    Leaves out the graphs that passed before.
    """

    def __init__(self, bundle: Bundle, engine: Engine, graphs: Sequence[TrialGraph]) -> None:
        self._bundle = bundle
        self._engine = engine
        self._graphs = []
        passed = read_passed() if graphs else frozenset()
        for graph in graphs:
            if not passed & {_make_key(bundle, engine, graph), make_key(graph.call.files, _TRUSTED)}:
                self._graphs.append(graph)
        self._probe = self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._probe is not None:
            self._probe.__exit__(kind, error, trace)

    def find_faults(self) -> list[BundleError]:
        """Waits for the trial and returns the fault of each graph that did not pass; remembers the others."""
        faults, passed = [], []
        while self._probe is not None:
            responses = self._probe.wait()
            for graph, response in zip(self._graphs, responses, strict=False):
                fault = find_fault(self._bundle, graph, response)
                if fault is None:
                    passed.append(_make_key(self._bundle, self._engine, graph))
                else:
                    faults.append(fault)
            self._graphs = self._graphs[len(responses) :]
            self._probe.__exit__(None, None, None)
            # A graph that ended the process leaves those behind it untried.
            self._probe = self._start()
        remember_passed(passed)
        return faults

    def _start(self) -> Probe | None:
        if not self._graphs:
            return None
        return Probe(self._bundle, self._engine, [make_call(self._bundle, graph) for graph in self._graphs])


def find_fault(bundle: Bundle, graph: TrialGraph, response: ProbeResponse) -> BundleError | None:
    """Returns the fault that the response of a trial shows, or None."""
    if response.fault and response.refused:
        return BundleError(response.fault)
    if response.fault:
        if response.stage == "run" and None in bundle.manifest.input.shape:
            return None  # the graph may take other sides than those of the trial
        verb = {"load": "cannot be loaded: ", "run": "cannot be run: "}.get(response.stage, "")
        return BundleError(f"{graph.name}: {verb}{response.fault}; export the bundle again")
    try:
        expected = graph.source.expected_outputs(bundle.manifest, graph.source.plan_trial(graph.call))
        check_outputs(graph.name, expected, response.outputs, 1)
    except BundleError as error:
        return error
    return None


def try_graphs(bundle: Bundle, engine: Engine, source: Source, calls: Sequence[Call]) -> None:
    """Tries the graphs of some calls, unless they passed before; imports the engine meanwhile.

    Raises BundleError with the first fault.
    """
    graphs = {call.files[0].path: TrialGraph(source, call) for call in reversed(calls)}
    with Trial(bundle, engine, list(reversed(graphs.values()))) as trial:
        engine.load_module()
        faults = trial.find_faults()
    if faults:
        raise faults[0]


def list_graphs(bundle: Bundle, engine: Engine) -> list[TrialGraph]:
    """Returns every graph of a bundle that an engine runs."""
    graphs = []
    for variant, source in FORMATS[engine.format].items():
        if source.needs_words and not engine.words:
            continue
        precisions = dict.fromkeys(file.precision for file in bundle.manifest.files if file.format == engine.format)
        for precision in precisions:
            if precision == "int8" and len(bundle.manifest.input.shape) == 2 and not engine.int8_sequences:
                continue
            files = source.find_files(bundle, engine.format, precision)
            groups = [files] if engine.format == "savedmodel" and files else [(file,) for file in files]
            graphs += [TrialGraph(source, Call(group, _draws_of(bundle, variant, group[0]))) for group in groups]
    return graphs


def _draws_of(bundle: Bundle, variant: Variant, file: FileRecord) -> Draws | None:
    """Returns draws that a file gives; None for the posterior mean."""
    posterior = bundle.manifest.posterior
    if variant == "mean" or posterior is None:
        return None
    start, count = file.draws or (0, posterior.chunk)
    return Draws(posterior.seed, start, count)


def trust_files(bundle: Bundle) -> None:
    """Remembers all files of a bundle as passed: its signature was verified, or this user exported it."""
    files = bundle.manifest.files
    groups = [(file,) for file in files if file.format != "savedmodel"]
    saved_model = tuple(file for file in files if file.format == "savedmodel")
    remember_passed(make_key(group, _TRUSTED) for group in (*groups, saved_model) if group)


def graph_name(files: Files) -> str:
    """The file that stands for a graph in messages: of a SavedModel its graph."""
    return next((file.path for file in files if file.path == "saved_model.pb"), files[0].path)


def _make_key(bundle: Bundle, engine: Engine, graph: TrialGraph) -> str:
    """Returns the key of a passed trial: the files, the engine as it is installed, and what the manifest promises."""
    manifest = bundle.manifest
    source = type(graph.source).__name__
    circumstances = (engine.name, engine.installation, source, manifest.input, manifest.heads)
    return make_key(graph.call.files, *circumstances)


@dataclass
class _Recorder:
    """Takes the place of a graph, and keeps what it is called with."""

    inputs: Arrays = field(default_factory=dict)
    signature: str = ""

    def __call__(self, inputs: Arrays, signature: str = "serving_default") -> Outputs:
        self.inputs, self.signature = inputs, signature
        return {}


def make_call(bundle: Bundle, graph: TrialGraph) -> ProbeCall:
    """Returns the call of a trial: one image of a pattern over the input's range."""
    input = bundle.manifest.input
    free = _FREE_SIDES.get(sum(side is None for side in input.shape), 32)
    shape = [side or free for side in input.shape]
    grid = [min(side, 8) for side in shape]
    low, high = input.range or (0.0, 1.0)
    pattern = low + (high - low) * (np.arange(math.prod(grid)) * 37 % 101 / 100.0)
    recorder = _Recorder()
    call = graph.source.plan_trial(graph.call)
    graph.source.run(recorder, np.zeros((0,), np.float32), call.draws)
    files = bundle.manifest.files
    chunk = call.draws.count if call.draws and graph.source.variant == "sampled" else 1
    seconds, size = estimate_limits(call.files, shape, chunk)
    return ProbeCall(
        files=[files.index(file) for file in call.files],
        signature=recorder.signature,
        shape=shape,
        grids=store_array(pattern.astype(np.float32).reshape(1, *grid)),
        scalars={name: int(values[0]) for name, values in recorder.inputs.items() if name != "images"},
        seconds=seconds,
        bytes=size,
    )


def estimate_limits(files: Sequence[FileRecord], shape: Sequence[int], passes: int) -> tuple[int, int]:
    """Returns the seconds of computing and the bytes that loading a graph and running it on one image may take.

    passes: how often each stored weight is used for one answer.
    """
    stored, values = sum(file.bytes for file in files), math.prod(shape)
    positions = values // max(1, shape[-1])
    multiplications = positions * (stored // 4) * passes
    seconds = SECONDS + stored / _BYTES_PER_SECOND + multiplications / _MULTIPLICATIONS_PER_SECOND
    size = BYTES + _BYTES_PER_FILE_BYTE * stored + _BYTES_PER_IMAGE_BYTE * 4 * values
    return int(min(seconds, _MOST_SECONDS)), size
