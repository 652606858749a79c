"""Runs of `probrt` in processes of their own that end before they are done: killed, or on a disk that is full."""

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

# A shell starts background jobs with SIGINT ignored, and a child inherits that: here it must not.
PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from probrt.runtime.cli import main; main()"
)


def start(words: Sequence[object], *, file_limit: int | None = None) -> subprocess.Popen[str]:
    """Starts `probrt` with some words. file_limit: the largest size of a file that it may write."""

    def limit() -> None:
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, words)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=limit,
    )  # fmt: skip


def run(words: Sequence[object], *, file_limit: int | None = None) -> tuple[int, str]:
    """Runs `probrt` to its end and returns its exit code and what it printed on standard error."""
    process = start(words, file_limit=file_limit)
    _, error = process.communicate(timeout=300)
    return process.returncode, error


def kill_when(words: Sequence[object], moment: Callable[[], bool]) -> bool:
    """Runs `probrt`, ends it by SIGKILL at a moment, and returns whether it still ran then."""
    process = start(words)
    try:
        while process.poll() is None and not moment():
            time.sleep(0.0005)
    finally:
        process.kill()
        process.communicate()
    return process.returncode == -9


def read_tree(folder: Path) -> dict[str, bytes]:
    """Returns the files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
