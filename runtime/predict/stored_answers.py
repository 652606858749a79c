"""Compares what the files of a bundle answer here with the answers that it stores, on every installed engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from probrt.runtime.bundle.answers import Answers, CallAnswer, read_answers
from probrt.runtime.bundle.arrays import StoredArray
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import ANSWERS, NOVELTY, FileRecord, Manifest, RunPrecision
from probrt.runtime.engines.outputs import BFLOAT16_TOLERANCE
from probrt.runtime.engines.probe import Probe
from probrt.runtime.engines.probe_process import ProbeCall, ProbeOutput, ProbeResponse
from probrt.runtime.engines.table import BUILT_IN, Engine
from probrt.runtime.errors import BundleError
from probrt.runtime.predict.trial import estimate_limits

# Of the largest value or of 1, for an output that the export did not compare with the model.
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Comparison:
    """What came of the comparison: the calls that were made, the engines that made them, and what differs, in words."""

    calls: int
    engines: tuple[str, ...]
    faults: tuple[str, ...]


def compare_answers(bundle: Bundle) -> Comparison:
    """Makes every stored call on every installed engine that reads its file, each in a process of its own.

    On processors that can, OpenVINO makes those of float32 files in bfloat16 too.
    Raises BundleError if the bundle stores no answers, or not of all its graphs.
    """
    answers = read_answers(bundle)
    _check_complete(bundle.manifest, answers)
    faults, count, names = [], 0, []
    for engine, precision in _list_runs():
        calls = [call for call in answers.calls if _can_run(bundle.manifest, engine, call, precision)]
        name = engine.name if precision == "float32" else f"{engine.name} in {precision}"
        if calls:
            names.append(name)
            count += len(calls)
        for call, response in _run_calls(bundle, engine, answers, calls, precision):
            fault = _judge(bundle.manifest, call, response, precision)
            if fault:
                faults.append(f"{_label(call)}: on {name} {fault}")
    return Comparison(count, tuple(names), tuple(faults))


def _list_runs() -> Iterator[tuple[Engine, RunPrecision]]:
    """Yields each installed engine, and its arithmetic."""
    for engine in BUILT_IN:
        if engine.installed:
            yield engine, "float32"
            if engine.has_bfloat16("cpu"):
                yield engine, "bfloat16"


def _check_complete(manifest: Manifest, answers: Answers) -> None:
    """Raises BundleError for a graph without answers, and for answers of something else."""
    graphs = {file.path for file in manifest.files if file.format != "savedmodel" or file.path == "saved_model.pb"}
    answered = {call.file for call in answers.calls}
    for names, what in ((graphs - answered, "none of"), (answered - graphs, "some of")):
        if names:
            raise BundleError(f"{ANSWERS}: has {what} {min(names)}; export the bundle again")


def _run_calls(
    bundle: Bundle, engine: Engine, answers: Answers, calls: Sequence[CallAnswer], precision: RunPrecision
) -> Iterator[tuple[CallAnswer, ProbeResponse]]:
    """Yields the response to each call; a call that ends its process leaves the rest to another."""
    while calls:
        with Probe(bundle, engine, [_make_probe(bundle.manifest, answers, call) for call in calls], precision) as probe:
            responses = probe.wait()
        yield from zip(calls, responses, strict=False)
        calls = calls[len(responses) :]


def _make_probe(manifest: Manifest, answers: Answers, call: CallAnswer) -> ProbeCall:
    files = _files(manifest, call)
    passes = max(1, call.scalars.get("num_samples", manifest.posterior.chunk if manifest.posterior else 1))
    seconds, size = estimate_limits(files, answers.shape, passes * answers.grids.shape[0])
    return ProbeCall(
        files=[manifest.files.index(file) for file in files],
        signature=call.signature,
        shape=answers.shape,
        grids=answers.grids,
        scalars=call.scalars,
        seconds=seconds,
        bytes=size,
    )


def _files(manifest: Manifest, call: CallAnswer) -> list[FileRecord]:
    """Returns the files that an engine loads for a call."""
    file = next(file for file in manifest.files if file.path == call.file)
    return [file] if file.format != "savedmodel" else [file for file in manifest.files if file.format == "savedmodel"]


def _can_run(manifest: Manifest, engine: Engine, call: CallAnswer, precision: RunPrecision) -> bool:
    file = next(file for file in manifest.files if file.path == call.file)
    if precision == "bfloat16" and file.precision != "float32":
        return False
    if file.format != engine.format or (file.variant == "sampled" and not engine.words):
        return False
    return engine.int8_sequences or file.precision != "int8" or len(manifest.input.shape) != 2


def _judge(manifest: Manifest, call: CallAnswer, response: ProbeResponse, precision: RunPrecision) -> str:
    """Returns what is wrong with a response, as the end of a sentence; empty if nothing is."""
    if response.fault:
        return f"it fails: {response.fault}"
    if response.outputs.keys() != call.outputs.keys():
        return f"it answers {', '.join(sorted(response.outputs))}, at export {', '.join(sorted(call.outputs))}"
    tolerances = {
        f"{row.head}.{row.quantity}": row.tolerance
        for row in manifest.parity
        if row.file == call.file and row.signature in ("", call.signature)
    }
    if precision == "bfloat16":
        # A p-value is a step function of the score, which is compared itself.
        response.outputs.pop(f"{NOVELTY}.p_value", None)
        tolerances = {}
    share = BFLOAT16_TOLERANCE if precision == "bfloat16" else _TOLERANCE
    faults = (
        _compare(name, output, call.outputs, tolerances, share) for name, output in sorted(response.outputs.items())
    )
    return next(filter(None, faults), "")


def _compare(
    name: str,
    output: ProbeOutput,
    stored: Mapping[str, StoredArray],
    tolerances: Mapping[str, float],
    share: float,
) -> str:
    """Returns how an output differs; `share` of the largest value is allowed where no tolerance is stated."""
    values, expected = output.entries.read(), stored[name].read()
    if values.shape != expected.shape:
        return f"{name} has {list(values.shape)} stored entries, at export {list(expected.shape)}"
    largest = float(np.max(np.abs(expected), where=np.isfinite(expected), initial=1.0))
    allowed = tolerances.get(name, share * largest)
    with np.errstate(invalid="ignore"):
        differences = np.where((values == expected) | (np.isnan(values) & np.isnan(expected)), 0, values - expected)
    difference = float(np.abs(differences).max(initial=0.0))
    if difference <= allowed:
        return ""
    return f"{name} differs by {difference:.2g} from its value at export, allowed {allowed:.2g}"


def _label(call: CallAnswer) -> str:
    return call.file if call.file != "saved_model.pb" else f"{call.file} {call.signature}"
