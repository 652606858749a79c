"""The distribution: what the wheel holds, and that it predicts in a clean environment without TensorFlow."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from cases import BY_NAME
from exported_cases import load_case
from PIL import Image


def ran(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what git tracks, so that nothing of an earlier build slips in."""
    top = Path(__file__).parent.parent
    copy = tmp_path_factory.mktemp("source")
    listed = ran("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=top).stdout.splitlines()
    for name in listed:
        if (top / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((top / name).read_bytes())
    out = tmp_path_factory.mktemp("wheel")
    ran(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, copy)
    (made,) = out.glob("*.whl")
    return made


def test_the_package_list_is_the_tree(root: Path) -> None:
    listed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    packages = {
        "probrt." + ".".join(path.parent.relative_to(root).parts)
        for top in ("runtime", "trainer", "exporter")
        for path in (root / top).rglob("__init__.py")
    }
    assert set(listed) == packages


def test_the_wheel_holds_every_module(root: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("probrt/") and ".dist-info" not in name}
    expected = {
        f"probrt/{path.relative_to(root).as_posix()}"
        for top in ("runtime", "trainer", "exporter")
        for path in (root / top).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == expected


@pytest.mark.parametrize("package", ["runtime", "trainer", "exporter"])
def test_a_bare_folder_import_is_refused(root: Path, package: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {package}"], capture_output=True, text=True, cwd=root, check=False
    )
    assert done.returncode == 1
    assert f"import probrt.{package}, not {package}" in done.stderr


def test_a_bare_install_predicts_without_tensorflow(wheel: Path, root: Path, tmp_path: Path) -> None:
    """Base dependencies only, in a clean environment: the digits case's bundle answers 32 draws' worth of rows."""
    bundle = load_case(BY_NAME["digits"]).bundle
    pins = re.sub(r" \\\n(\s+--hash=\S+( \\\n)?)+", "\n", (root / "constraints.txt").read_text())
    (tmp_path / "pins.txt").write_text(pins)
    venv.create(tmp_path / "clean", with_pip=True)
    python = tmp_path / "clean" / "bin" / "python"
    ran(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", tmp_path / "pins.txt", wheel)
    installed = json.loads(ran(python, "-m", "pip", "list", "--format=json", "--disable-pip-version-check").stdout)
    assert not {"tensorflow", "keras", "onnx", "onnxruntime"} & {package["name"].lower() for package in installed}
    (tmp_path / "images").mkdir()
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (20, 24), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index}.png")
    probrt = tmp_path / "clean" / "bin" / "probrt"
    ran(probrt, "predict", "--samples", 8, "--bundle", bundle.path, "images", cwd=tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows] == ["ok"] * 3
    assert {(row["draws"], row["engine"]) for row in rows} == {(8, "litert")}
    assert all(row["heads"]["slant"]["epistemic"] for row in rows)
    missing = subprocess.run(
        [probrt, "predict", "--engine", "onnxruntime", "--bundle", bundle.path, "--out", "other.jsonl", "images"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert missing.returncode == 2
    assert "pip install 'probrt[onnx]'" in missing.stderr
