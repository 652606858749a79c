"""The process that runs graphs which nobody trusts yet: it reads requests, limits itself, and answers line by line.

`probe.py` starts it. A graph that crashes, loops without end or takes all memory ends this process and no other.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from probrt.runtime.bundle.answers import pick_entries
from probrt.runtime.bundle.arrays import StoredArray, enlarge, store_array
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import Manifest, RunPrecision
from probrt.runtime.engines.graph import Graph
from probrt.runtime.errors import ProbrtError, one_line

# Seconds by the clock for each second of computing: other processes may keep the processors busy.
PATIENCE = 6


class ProbeCall(Struct, frozen=True, kw_only=True):
    """One call of a graph.

    files: positions in the manifest's list. shape: of an image; grids: images that are enlarged to it.
    scalars: the other inputs, each int32 of length 1.
    seconds, bytes: how much computing time and memory loading and running may take.
    """

    files: list[int]
    signature: str
    shape: list[int]
    grids: StoredArray
    scalars: dict[str, int]
    seconds: int
    bytes: int


class ProbeRequest(Struct, frozen=True, kw_only=True):
    """What the process reads: the bundle as the caller checked it, the engine, and the calls."""

    folder: str
    manifest: Manifest
    module: str
    device: str
    precision: RunPrecision
    calls: list[ProbeCall]


class ProbeOutput(Struct, frozen=True, kw_only=True):
    """One output of a call: its shape and type, and some entries of each row, [batch, entries]."""

    shape: tuple[int, ...]
    dtype: str
    entries: StoredArray


class ProbeResponse(Struct, frozen=True, kw_only=True):
    """What came of one call: its outputs, or why there are none.

    stage: what failed, "load" or "run"; empty where the call ended the process or met its limits.
    refused: whether the fault is a whole message that names its file.
    """

    outputs: dict[str, ProbeOutput] = {}
    fault: str = ""
    stage: str = ""
    refused: bool = False


def main() -> None:
    """Answers the request on standard input by one line of JSON per call on standard output."""
    request = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=ProbeRequest)
    # Native libraries write to standard output as they please: the answers keep it to themselves.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for response in answer_request(request):
        answers.write(msgspec.json.encode(response) + b"\n")
        answers.flush()
    answers.close()
    os._exit(0)  # engines may crash when they are taken down


def answer_request(request: ProbeRequest) -> Iterator[ProbeResponse]:
    """Makes the calls of a request under their limits and yields the response to each."""
    bundle = Bundle(Path(request.folder), request.manifest)
    module = importlib.import_module(request.module)
    load = module.load_bfloat16 if request.precision == "bfloat16" else module.load
    graph: Graph | None = None
    loaded: list[int] = []
    for call in request.calls:
        limit_resources(call.seconds, call.bytes)
        stage = "load"
        try:
            if graph is None or loaded != call.files:
                files = [bundle.manifest.files[index] for index in call.files]
                graph, loaded = load(bundle, files, request.device, 1), call.files
            stage = "run"
            yield ProbeResponse(outputs=_run(graph, call))
        except ProbrtError as error:
            yield ProbeResponse(fault=str(error), stage=stage, refused=True)
        except MemoryError:
            yield ProbeResponse(fault=f"takes more than {call.bytes >> 20} MB of memory")
        except Exception as error:  # every engine has exceptions of its own
            yield ProbeResponse(fault=one_line(error)[:200], stage=stage)


def limit_resources(seconds: int, size: int) -> None:
    """Lets the process compute for `seconds` more and take `size` more bytes; a signal ends it after that."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, PATIENCE * seconds)
    with contextlib.suppress(ImportError, OSError, ValueError):  # absent on Windows; a lower hard limit stays
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        usage = resource.getrusage(resource.RUSAGE_SELF)
        used = math.ceil(usage.ru_utime + usage.ru_stime)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (used + seconds, hard))
        # In pages; the sixth is data and stack.
        data = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (data + size, hard))


def _run(graph: Graph, call: ProbeCall) -> dict[str, ProbeOutput]:
    images = enlarge(call.grids.read(), call.shape)
    scalars = {name: np.array([value], np.int32) for name, value in call.scalars.items()}
    outputs = graph({"images": images, **scalars}, call.signature)
    return {name: _describe(np.asarray(values)) for name, values in outputs.items()}


def _describe(values: np.ndarray) -> ProbeOutput:
    entries = pick_entries(values) if values.ndim and values.dtype == np.float32 else np.zeros((0, 0), np.float32)
    return ProbeOutput(shape=values.shape, dtype=str(values.dtype), entries=store_array(entries))
