"""The script of docs/concepts.md draws its pictures from a model that it trains."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image


@pytest.mark.stress
@pytest.mark.walk
def test_the_pictures_are_drawn(root: Path, tmp_path: Path, measured: Callable[[str, str], None]) -> None:
    done = subprocess.run(
        [sys.executable, root / "docs" / "draw_concepts.py", "--out", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    values = dict(line.rsplit(": ", 1) for line in done.stdout.splitlines())
    assert measure_pictures(tmp_path) == measure_pictures(root / "docs" / "concepts")
    assert float(values["test digits, accuracy"].rstrip("%")) > 85
    assert float(values["unknown at 1 %: held-out digits"].rstrip("%")) < 5
    assert float(values["unknown at 1 %: noise"].rstrip("%")) > 95
    measured(
        "the pictures of docs/concepts.md, drawn anew", "; ".join(f"{what} {value}" for what, value in values.items())
    )


def measure_pictures(folder: Path) -> dict[str, tuple[int, int]]:
    """Returns the width and the height of each picture of a folder, by name."""
    sizes = {}
    for path in folder.glob("*.png"):
        with Image.open(path) as picture:
            sizes[path.name] = picture.size
    return sizes
