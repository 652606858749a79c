"""Runs the files of an unpublished bundle, to compare, time and store what they answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from probrt.exporter.reference import NamedArrays
from probrt.runtime.bundle.answers import CallAnswer, store_outputs
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import FileRecord
from probrt.runtime.engines import Graph, engines
from probrt.runtime.engines.outputs import check_outputs, expected_outputs
from probrt.runtime.errors import MissingError

SAVED_MODEL = "saved_model.pb"
Inputs = dict[str, npt.NDArray[Any]]

_THREADS = 2
# The engine that checks a format.
_ENGINES = {"tflite": "litert", "onnx": "onnxruntime", "savedmodel": "tensorflow"}


@dataclass(frozen=True)
class FileAnswer:
    """What a file answered: to the compared images, in seconds, and what is stored of its answers to others."""

    outputs: NamedArrays
    seconds: float
    stored: tuple[CallAnswer, ...] = ()


def load_graph(bundle: Bundle, files: Sequence[FileRecord]) -> Graph:
    """Loads a file, or the SavedModel's files, with the engine that checks its format."""
    name = _ENGINES[files[0].format]
    engine = next(engine for engine in engines() if engine.name == name)
    if not engine.installed:
        raise MissingError(f"checking {files[0].path} needs {name}, not installed; {engine.install}")
    return engine.load_graph(bundle, list(files), "cpu", _THREADS)


def run_calls(
    bundle: Bundle, file: FileRecord, calls: Sequence[Inputs], stored_images: npt.NDArray[np.float32]
) -> FileAnswer:
    """Loads a file and makes some calls; the seconds are those of the last one repeated, so they include no start."""
    graph = load_graph(bundle, [file])
    answers = [graph(call) for call in calls]
    for answer in answers:
        check_outputs(file.path, expected_outputs(bundle.manifest, file, file.variant), answer, len(calls[0]["images"]))
    begin = time.perf_counter()
    graph(calls[-1])
    seconds = time.perf_counter() - begin
    stored = [_store_answer(graph, file.path, "serving_default", call, stored_images) for call in calls]
    return FileAnswer(concatenate(answers), seconds, tuple(stored))


def run_signature(graph: Graph, inputs: Inputs, signature: str, stored_images: npt.NDArray[np.float32]) -> FileAnswer:
    answer, begin = graph(inputs, signature), time.perf_counter()
    graph(inputs, signature)
    seconds = time.perf_counter() - begin
    if "images" not in inputs:
        return FileAnswer(answer, seconds)
    return FileAnswer(answer, seconds, (_store_answer(graph, SAVED_MODEL, signature, inputs, stored_images),))


def _store_answer(graph: Graph, file: str, signature: str, call: Inputs, images: npt.NDArray[np.float32]) -> CallAnswer:
    """Makes a call for the images that the bundle stores, and returns its answer as that is stored."""
    scalars = {name: int(values[0]) for name, values in call.items() if name != "images"}
    outputs = graph({**call, "images": images}, signature)
    return CallAnswer(file=file, signature=signature, scalars=scalars, outputs=store_outputs(outputs))


def concatenate(answers: Sequence[NamedArrays]) -> NamedArrays:
    """Joins answers along the batch."""
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
