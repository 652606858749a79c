"""Runs commands of probrt as a person does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def run_probrt(*words: object, cwd: Path | None = None, codes: Sequence[int] = (0,)) -> None:
    """Runs a command silently; ends the benchmark with what it says if its exit code is none of `codes`."""
    command = [str(Path(sys.executable).parent / "probrt"), *map(str, words)]
    finished = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if finished.returncode not in codes:
        raise SystemExit(f"probrt {words[0]}: {finished.stderr.strip()}")
