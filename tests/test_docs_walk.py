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
from extra_packages import MLFLOW, RAY, install
from PIL import Image

# In this order: each page finds what the pages before have left. Docker, Kubernetes and the server of MLflow are not:
# the first two have no place to run, the last has a test of its own.
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


def find_commands(page: Path, programs: tuple[str, ...] = _PROGRAMS) -> list[str]:
    """Returns the commands of a page's shell blocks, without comments; those of servers and the like are left out."""
    commands = []
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        lines = (line.split("  #")[0].strip() for line in block.replace("\\\n", " ").splitlines())
        commands += [line for line in lines if line.startswith(programs)]
    return commands


def shorten(command: str) -> str:
    """Returns a command that does less: ten minutes of training and large banks are for people."""
    short = command.replace("--minutes 10", "--minutes 0.1").replace("examples/digits/data/shifted", "shifted")
    return f"{short} --draws 8 --no-select" if short.startswith("probrt export") else short


def run_in(folder: Path, command: str, *allowed: int, packages: Path | None = None) -> None:
    """Runs a command of the docs; packages: a folder of further Python packages."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    if packages:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(packages))))
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, *allowed), f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.mark.stress
@pytest.mark.walk
def test_the_commands_of_the_docs_run(root: Path, tmp_path: Path, measured: Callable[[str, str], None]) -> None:
    write_class_folders(tmp_path / "photos", 600)
    write_class_folders(tmp_path / "examples" / "digits" / "data", 600)
    (tmp_path / "examples" / "digits" / "config.toml").write_text(_CONFIG)
    strangers = tmp_path / "shifted"
    write_class_folders(strangers, 20, side=20)
    ran = 0

    def run(command: str, *allowed: int) -> None:
        nonlocal ran
        run_in(tmp_path, command, *allowed)
        ran += 1

    for page in PAGES:
        commands = find_commands(root / "docs" / page)
        assert commands, page
        if page == "export.md":
            for name in ("model", "first", "second", "third"):
                shutil.rmtree(tmp_path / name, ignore_errors=True)
                shutil.copytree(tmp_path / "demo" / "model", tmp_path / name)
        if page == "in_use.md":
            write_class_folders(tmp_path / "pool", 150)
            run("probrt export model/")
            for name in ("usual", "today", "rows"):
                run(f"probrt predict photos --bundle artifacts/digits/3 --out {name}.jsonl")
        for command in commands:
            # Other pages leave more bundles here. Two small samples may differ, which is exit code 1 of drift.
            bundle = " --bundle artifacts/digits" if command.startswith("probrt label") else ""
            run(shorten(command) + bundle, *([1] if " drift " in command else []))
    measured("the commands of the docs, page by page", f"{ran} commands of {len(PAGES)} pages ran")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model directory, its bundle of 16 draws in artifacts/, and imgs/."""
    place = tmp_path_factory.mktemp("served")
    write_class_folders(place / "data", 400)
    write_class_folders(place / "imgs", 30)
    (place / "config.toml").write_text(_CONFIG.replace("epochs = 1", "epochs = 8"))
    run_in(place, "probrt train config.toml --out model")
    run_in(place, "probrt export model/ --draws 16 --no-select")
    return place


@pytest.mark.stress
@pytest.mark.walk
def test_the_first_draws_here_and_the_others_on_a_server(
    root: Path, served: Path, measured: Callable[[str, str], None]
) -> None:
    ran = 0
    for page in ("edge.md", "predict.md"):
        (served / "more.jsonl").unlink(missing_ok=True)
        for command in find_commands(root / "docs" / page, ("probrt ", "mkdir ", "cp ")):
            run_in(served, command)
            ran += 1
        assert (served / "more.jsonl").is_file()
    measured("the commands of edge.md and predict.md", f"{ran} ran")


@pytest.mark.stress
@pytest.mark.walk
def test_adoption_as_its_page_shows_it(root: Path, tmp_path: Path, measured: Callable[[str, str], None]) -> None:
    import keras

    page = root / "docs" / "adopt.md"
    heads, options = re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "heads.toml").write_text(options.replace("64, 64, 3", "16, 16, 1") + heads)
    rng = np.random.default_rng(6)
    for index in range(150):
        path = tmp_path / "labelled" / str(index % 3) / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        low = 80 * (index % 3)
        Image.fromarray(rng.integers(low, low + 80, (16, 16), dtype=np.uint8)).save(path)
    model = keras.Sequential([
        keras.Input((16, 16, 1)), keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(3, activation="softmax"),
    ])  # fmt: skip
    model.save(tmp_path / "model.keras")
    commands = find_commands(page)
    for command in commands:
        run_in(tmp_path, shorten(command))
    measured("the commands and the TOML of adopt.md", f"{len(commands)} commands ran")


@pytest.mark.stress
@pytest.mark.walk
def test_mlflow_as_its_page_shows_it(root: Path, served: Path, measured: Callable[[str, str], None]) -> None:
    page = root / "docs" / "mlflow.md"
    (command,) = find_commands(page)
    run_in(served, f"{command} --draws 16 --no-select --version 1 --artifacts again")
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    shutil.copy(next((served / "imgs").rglob("*.png")), served / "image.png")
    (served / "page.py").write_text(code.replace("artifacts/", "again/") + "assert answer.status.tolist() == ['ok']\n")
    run_in(served, "python page.py", packages=install(*MLFLOW))
    measured("the export and the Python of mlflow.md, with the real MLflow", "answered")


@pytest.mark.stress
@pytest.mark.walk
def test_ray_as_its_page_shows_it(root: Path, served: Path, measured: Callable[[str, str], None]) -> None:
    here, elsewhere = find_commands(root / "docs" / "scale.md")
    assert "10.0.0.1" in elsewhere  # a Ray and a store that are not here
    run_in(served, here, packages=install(*RAY))
    assert list((served / "rows").glob("part-*.parquet"))
    measured("the local command of scale.md", "rows written")
