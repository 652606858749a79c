"""Packages of optional extras, each set in a folder of its own: real ones, at fixed versions, for the stress tests."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CACHE = Path(__file__).parent.parent / ".cache" / "packages"
RAY = ("ray==2.60.0", "fsspec==2026.9.0", "filelock==4.3.1", "msgpack==1.2.4", "pyyaml==6.0.4")


def install(*pins: str) -> Path:
    """Returns a folder with the packages, which pip fills at the first call; their dependencies are among the pins."""
    folder = CACHE / f"{pins[0].replace('==', '-')}-{hashlib.sha256(' '.join(pins).encode()).hexdigest()[:8]}"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            done = subprocess.run(
                [*command, "--target", f"{scratch}/it", *pins], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            shutil.move(f"{scratch}/it", folder)
    return folder


def environment(folder: Path) -> dict[str, str]:
    """Returns the environment of a process that imports the packages too."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(folder)])}
