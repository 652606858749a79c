"""The README's installation and its walk, as a newcomer types them."""

from __future__ import annotations

import os
import re
import subprocess
import time
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

# Of the processor, which other work beside it hardly changes: 12 minutes of one core.
_MOST_SECONDS = 720


def find_blocks(page: str, heading: str, language: str) -> list[str]:
    """Returns the code blocks of a language under a heading of the second level."""
    section = page.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def copy_tracked(root: Path, folder: Path) -> None:
    """Copies what a clone has."""
    names = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout
    for name in names.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((root / name).read_bytes())


def run_shell(lines: str, folder: Path, environment: dict[str, str]) -> str:
    """Runs a block, which stops at the first line that fails, and returns what it printed."""
    done = subprocess.run(
        ["bash", "-ec", lines], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, lines + done.stdout + done.stderr
    return done.stdout + done.stderr


def processor_seconds() -> float:
    """Returns what the processes that have ended took of the processor."""
    times = os.times()
    return times.children_user + times.children_system


@pytest.mark.stress
@pytest.mark.walk
def test_a_newcomer_installs_and_walks(root: Path, tmp_path: Path, measured: Callable[[str, str], None]) -> None:
    page = (root / "README.md").read_text(encoding="utf-8")
    clone, environment_folder = tmp_path / "clone", tmp_path / "environment"
    copy_tracked(root, clone)
    venv.create(environment_folder, with_pip=True)
    pins = re.sub(r" \\\n(\s+--hash=\S+( \\\n)?)+", "\n", (root / "constraints.txt").read_text())
    (tmp_path / "pins.txt").write_text(pins)
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "XDG_CACHE_HOME")}
    environment = kept | {
        "PATH": f"{environment_folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PIP_CONSTRAINT": str(tmp_path / "pins.txt"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    start = time.monotonic()
    for block in find_blocks(page, "Install", "sh"):
        run_shell(block, clone, environment)
    installed, used = time.monotonic(), processor_seconds()
    (code,), (walk,) = find_blocks(page, "A walk", "python"), find_blocks(page, "A walk", "sh")
    work = tmp_path / "work"
    work.mkdir()
    (work / "make_photos.py").write_text(code)
    run_shell("python make_photos.py", work, environment)
    printed = run_shell(walk, work, environment)
    walked, used = time.monotonic(), processor_seconds() - used
    assert "WARNING" not in printed
    assert "Traceback" not in printed
    rows = (work / "predictions.jsonl").read_text().splitlines()
    assert len(rows) == 1797
    assert all('"status":"ok"' in row.replace(" ", "") for row in rows)
    assert used < _MOST_SECONDS
    measured(
        "the README's installation and walk in a new environment",
        f"installed in {installed - start:.0f} s; init to report in {walked - installed:.0f} s, "
        f"{used:.0f} s of the processor",
    )
