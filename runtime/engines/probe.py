"""Runs graphs that nobody trusts yet in a process of their own, with limits on time and memory."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import msgspec

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import RunPrecision
from probrt.runtime.engines.probe_process import PATIENCE, ProbeCall, ProbeRequest, ProbeResponse
from probrt.runtime.engines.table import Engine
from probrt.runtime.errors import Fault, MissingError

# The new interpreter sees the modules that this one sees, and nothing of its environment or working directory.
_CODE = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from probrt.runtime.engines.probe_process import main; main()"
)
# How long an engine may take to start; it is the engine's own code.
_START_SECONDS = 180
# The exit code of a process that the alarm of its limits ended.
_TIMED_OUT = -14


class Probe:
    """A process that makes some calls of a bundle's graphs; starts at once and ends with the block."""

    def __init__(
        self, bundle: Bundle, engine: Engine, calls: Sequence[ProbeCall], precision: RunPrecision = "float32"
    ) -> None:
        self._engine = engine
        self._calls = calls
        self._answers = tempfile.TemporaryFile()  # noqa: SIM115  (`__exit__` closes it)
        request = make_request(bundle, engine, calls, precision)
        # A GPU's memory is left to the run itself.
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
        with tempfile.TemporaryFile() as stream:
            stream.write(msgspec.msgpack.encode(request))
            stream.seek(0)
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-c", _CODE, json.dumps(sys.path)],
                    stdin=stream,
                    stdout=self._answers,
                    stderr=subprocess.DEVNULL,
                    env=environment,
                    start_new_session=True,  # Ctrl-C reaches this process alone, which then ends that one
                )
            except OSError as error:
                self._answers.close()
                raise Fault(f"cannot start a process to try {bundle.label}: {error.strerror or error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._answers.close()

    def wait(self) -> list[ProbeResponse]:
        """Waits for the process and returns the response to each call up to the first that ended it.

        Raises MissingError if the engine itself does not start.
        """
        seconds = _START_SECONDS + sum(PATIENCE * call.seconds for call in self._calls)
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            code = _TIMED_OUT
        self._answers.seek(0)
        lines = self._answers.read().splitlines()
        responses = [msgspec.json.decode(line, type=ProbeResponse) for line in lines]
        if len(responses) < len(self._calls):
            if code > 0 and not responses:
                raise MissingError(f"engine {self._engine.name} does not start here: {self._engine.install}")
            call = self._calls[len(responses)]
            responses.append(ProbeResponse(fault=_explain_end(code, call)))
        return responses


def make_request(
    bundle: Bundle, engine: Engine, calls: Sequence[ProbeCall], precision: RunPrecision = "float32"
) -> ProbeRequest:
    """Returns a request to make some calls on the CPU, which shows whether a graph is sound on any device."""
    return ProbeRequest(
        folder=str(bundle.path.absolute()),
        manifest=bundle.manifest,
        module=engine.module,
        device="cpu" if "cpu" in engine.devices else engine.devices[0],
        precision=precision,
        calls=list(calls),
    )


def _explain_end(code: int, call: ProbeCall) -> str:
    """Returns why a call ended the process, from its exit code."""
    name = signal.Signals(-code).name if -code in list(signal.Signals) else f"exit code {code}"
    if code == _TIMED_OUT or name == "SIGXCPU":
        return f"does not come to an end within {call.seconds} s"
    return f"ends the process that runs it ({name})"
