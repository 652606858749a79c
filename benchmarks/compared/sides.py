"""Programs that are timed in turn: each in a process of its own, because they need different libraries.

A side is a Python file that calls `serve`. It reads a line per measurement, `<what> <images>`, and prints milliseconds;
`memory 0` prints the peak resident memory of the process so far, in MB.
Rounds alternate between the sides, so that other load slows all of them alike.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

Step = Callable[[int], object]
"""Answers a batch of so many images."""


def serve(steps: Mapping[str, Step], seconds: float) -> None:
    """Answers requests on stdin until it ends. seconds: of calls per measurement, after one that does not count."""
    print("ready", flush=True)
    for line in sys.stdin:
        what, images = line.split()
        if what == "memory":
            print(read_peak_memory(), flush=True)
            continue
        step, size = steps[what], int(images)
        step(size)
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds or count == 0:
            step(size)
            count += 1
        print((time.perf_counter() - start) / count * 1e3, flush=True)


def read_peak_memory() -> float:
    """Returns the peak resident memory of this process in MB; what getrusage counts is that of its starter, too."""
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes) / 1024


class Sides:
    """Starts a process per side; `measure` times them in turn. A context manager, which ends the processes."""

    def __init__(self, commands: Mapping[str, Sequence[str | Path]]) -> None:
        quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        self._processes = {
            side: subprocess.Popen(
                [*map(str, command)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=quiet,
            )
            for side, command in commands.items()
        }
        for side, process in self._processes.items():
            if process.stdout.readline().strip() != "ready":
                raise SystemExit(f"the side {side} did not start: {' '.join(map(str, commands[side]))}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes.values():
            process.stdin.close()
            process.wait()

    def measure(self, requests: Mapping[str, tuple[str, str, int]], rounds: int) -> dict[str, float]:
        """Returns the median milliseconds of each request: its side, what the side does, and of how many images."""
        times: dict[str, list[float]] = {name: [] for name in requests}
        for _ in range(rounds):
            for name, (side, what, images) in requests.items():
                process = self._processes[side]
                process.stdin.write(f"{what} {images}\n")
                process.stdin.flush()
                times[name].append(float(process.stdout.readline()))
        return {name: statistics.median(values) for name, values in times.items()}
