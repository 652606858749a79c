"""Commands in processes of their own, as a user runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def probrt(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs the installed `probrt` in a folder."""
    program = Path(sys.executable).parent / "probrt"
    return subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=False, cwd=cwd)
