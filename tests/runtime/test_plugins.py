"""The engine and the command of a third party are found by the entry points of their distribution."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from probrt.runtime.bundle.bundle import Bundle

MODULE = '''
from probrt.runtime.engines import Engine
from probrt.runtime.engines.onnxruntime import devices, load

def version():
    return "9.9"

abacus = Engine("abacus", "abacus", "onnx", "onnxruntime", "", ("cpu",), 0, 0.0)

def greet(name: str) -> int:
    """Say hello."""
    print(f"hello {name}")
    return 0
'''


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that finds the plug-in."""
    info = tmp_path / "site" / "abacus-9.9.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: abacus\nVersion: 9.9\n")
    points = "[probrt.engines]\nabacus = abacus:abacus\n[probrt.commands]\ngreet = abacus:greet\n"
    (info / "entry_points.txt").write_text(points)
    (tmp_path / "site" / "abacus.py").write_text(MODULE)
    return {**os.environ, "PYTHONPATH": str(tmp_path / "site")}


def run_probrt(environment: dict[str, str], *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", "from probrt.runtime.cli import main; main()", *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_plug_in_command_is_listed_and_runs(environment: dict[str, str]) -> None:
    assert "greet      (from abacus)" in run_probrt(environment, "--help").stdout
    assert run_probrt(environment, "greet", "you").stdout == "hello you\n"


def test_a_plug_in_engine_runs_only_where_it_is_named(
    environment: dict[str, str], bundle: Bundle, pictures: Path, tmp_path: Path
) -> None:
    words = ["predict", pictures / "00.png", "--bundle", bundle.path, "--out", tmp_path / "p.jsonl", "--overwrite"]
    for choice, engine in ((["--engine", "abacus"], "abacus"), ([], "litert")):
        result = run_probrt(environment, *words, *choice)
        assert result.returncode == 0, result.stderr
        assert json.loads((tmp_path / "p.jsonl").read_text())["engine"] == engine
    assert "9.9" in run_probrt(environment, "doctor").stdout


def test_a_broken_plug_in_is_named(environment: dict[str, str], tmp_path: Path, bundle: Bundle, pictures: Path) -> None:
    (tmp_path / "site" / "abacus.py").write_text("import nothing_of_that_name")
    result = run_probrt(environment, "predict", pictures, "--bundle", bundle.path, "--engine", "abacus")
    assert result.returncode == 2
    assert "entry point abacus of probrt.engines does not load" in result.stderr
    assert run_probrt(environment, "greet").returncode == 2
