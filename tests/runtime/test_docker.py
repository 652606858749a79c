"""The Dockerfile, as far as it can be read without an engine: what it installs, and that this can be had."""

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
    kept = (TOP / ".dockerignore").read_text().split()
    assert kept[0] == "*"  # then what the wheel is made of
    assert set(kept[1:]) == {
        f"!{name}" for name in ("runtime", "trainer", "exporter", "pyproject.toml", "README.md", "LICENSE")
    }


@pytest.mark.stress
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_its_install_resolves_to_the_base_on_both_machines(machine: str, tmp_path: Path) -> None:
    """By pip, for the image's own Python, from wheels alone."""
    assert PYTHON is not None
    platforms = [f"--platform=manylinux_{tag}_{machine}" for tag in ("2_17", "2_27", "2_28")]
    words = ["install", "--dry-run", "--quiet", "--ignore-installed", "--only-binary=:all:", "--report=-"]
    words += [f"--target={tmp_path}", f"--python-version={PYTHON.group(1)}", f"--platform=manylinux2014_{machine}"]
    base = re.search(r"^dependencies = \[(.*?)^\]", (TOP / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    assert base is not None
    needs = re.findall(r'"([^"]+)"', base.group(1))
    ran = subprocess.run(
        [sys.executable, "-m", "pip", *words, *platforms, *needs], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    found = {one["metadata"]["name"].lower() for one in json.loads(ran.stdout)["install"]}
    assert {"ai-edge-litert", "numpy", "pillow", "typer", "rich", "msgspec"} <= found
    assert not found & {"tensorflow", "keras", "tf-keras", "onnx", "onnxruntime", "openvino", "scipy", "pyarrow"}
