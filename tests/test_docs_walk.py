"""The commands of the docs run, in the order of the pages, in a folder that has what they name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# In this order: each page finds what the pages before have left. Ray, Docker and MLflow have tests of their own.
PAGES = ("train.md", "export.md", "in_use.md", "serving.md")
_PROGRAMS = ("probrt ", "openssl ")
_CONFIG = """
name = "digits"
data = { folder = "data" }
input = { shape = [16, 16, 1], colour = "grey", resize = "bilinear", range = [0, 255] }
heads = [{ name = "digit", likelihood = "categorical", labels = ["dark", "light"] }]
backbone = { name = "conv", widths = [4] }
fit = { epochs = 1 }
"""


def write_class_folders(folder: Path, count: int, side: int = 16) -> None:
    """Writes pictures of two classes that differ in brightness."""
    rng = np.random.default_rng(4)
    for index in range(count):
        label, low = ("dark", 0) if index % 2 else ("light", 100)
        path = folder / label / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(low, low + 120, (side, side), dtype=np.uint8)).save(path)


def find_commands(page: Path) -> list[str]:
    """Returns the commands of a page's shell blocks, without comments; those of servers and the like are left out."""
    commands = []
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        lines = (line.split("  #")[0].strip() for line in block.replace("\\\n", " ").splitlines())
        commands += [line for line in lines if line.startswith(_PROGRAMS)]
    return commands


def shorten(command: str) -> str:
    """Returns a command that does less: ten minutes of training and large banks are for people."""
    short = command.replace("--minutes 10", "--minutes 0.1").replace("examples/digits/data/shifted", "shifted")
    return f"{short} --draws 8 --no-select" if short.startswith("probrt export") else short


@pytest.mark.stress
@pytest.mark.walk
def test_the_commands_of_the_docs_run(root: Path, tmp_path: Path, measured: Callable[[str, str], None]) -> None:
    write_class_folders(tmp_path / "photos", 600)
    write_class_folders(tmp_path / "examples" / "digits" / "data", 600)
    (tmp_path / "examples" / "digits" / "config.toml").write_text(_CONFIG)
    strangers = tmp_path / "shifted"
    write_class_folders(strangers, 20, side=20)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    ran = 0

    def run(command: str, *allowed: int) -> None:
        nonlocal ran
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode in (0, *allowed), f"{command}\n{done.stdout}\n{done.stderr}"
        ran += 1

    for page in PAGES:
        commands = find_commands(root / "docs" / page)
        assert commands, page
        if page == "export.md":
            for name in ("model", "first", "second", "third"):
                shutil.rmtree(tmp_path / name, ignore_errors=True)
                shutil.copytree(tmp_path / "demo" / "model", tmp_path / name)
        if page == "in_use.md":
            run("probrt export model/")
            for name in ("usual", "today", "rows"):
                run(f"probrt predict photos --bundle artifacts/digits/3 --out {name}.jsonl")
        for command in commands:
            # Two small samples may differ, which is exit code 1 of drift.
            run(shorten(command), *([1] if " drift " in command else []))
    measured("the commands of the docs, page by page", f"{ran} commands of {len(PAGES)} pages ran")
