"""The Dockerfile, without Docker: what it installs, and that pip can install it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
LINES = [line for line in (TOP / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
PYTHON = re.search(r"python:(3\.\d+)-slim", LINES[0])


def test_it_installs_the_base_and_runs_as_nobody_special() -> None:
    assert [line.split()[0] for line in LINES] == ["FROM", "COPY", "RUN", "USER", "WORKDIR", "ENTRYPOINT", "CMD"]
    assert PYTHON is not None
    assert PYTHON.group(1) in ("3.11", "3.12", "3.13")
    installs = re.findall(r"pip install --no-cache-dir (\S+)", "\n".join(LINES))
    assert installs == ["/tmp/probrt"]  # no extra, nothing else
    assert json.loads(LINES[-2].removeprefix("ENTRYPOINT")) == ["probrt"]
    patterns = (TOP / ".dockerignore").read_text().split()
    assert patterns[0] == "*"  # all is ignored but what the wheel is made of
    assert set(patterns[1:]) == {
        f"!{name}" for name in ("runtime", "trainer", "exporter", "pyproject.toml", "README.md", "LICENSE")
    }


@pytest.mark.stress
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_its_install_resolves_to_the_base_on_both_machines(machine: str, tmp_path: Path) -> None:
    """pip resolves it for the Python of the image, from wheels alone."""
    assert PYTHON is not None
    platforms = [f"--platform=manylinux_{tag}_{machine}" for tag in ("2_17", "2_27", "2_28")]
    words = ["install", "--dry-run", "--quiet", "--ignore-installed", "--only-binary=:all:", "--report=-"]
    words += [f"--target={tmp_path}", f"--python-version={PYTHON.group(1)}", f"--platform=manylinux2014_{machine}"]
    base = re.search(r"^dependencies = \[(.*?)^\]", (TOP / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    assert base is not None
    needs = re.findall(r'"([^"]+)"', base.group(1))
    process = subprocess.run(
        [sys.executable, "-m", "pip", *words, *platforms, *needs], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr[-2000:]
    names = {item["metadata"]["name"].lower() for item in json.loads(process.stdout)["install"]}
    assert {"ai-edge-litert", "numpy", "pillow", "typer", "rich", "msgspec"} <= names
    assert not names & {"tensorflow", "keras", "tf-keras", "onnx", "onnxruntime", "openvino", "scipy", "pyarrow"}
