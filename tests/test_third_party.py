"""The package of docs/extend.md, built and installed as its readers would, from training to predictions."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

TOP = Path(__file__).parent.parent
PAGE = (TOP / "docs" / "extend.md").read_text()
CONFIG = """
name = "fields"
[data]
folder = "data"
[input]
shape = [8, 8, 1]
colour = "grey"
resize = "none"
[backbone]
name = "halving"
filters = [4]
[weights]
posterior = {name = "triangular"}
prior = {name = "logistic", scale = 1.0}
[[heads]]
name = "height"
likelihood = "logistic"
[fit]
epochs = 2
batch = 16
"""
COMMANDS = (
    ["train", "config.toml", "--out", "model"],
    ["evaluate", "model", "--samples", "4", "--resamples", "20"],
    ["export", "model", "--formats", "tflite", "--draws", "8"],
)


@pytest.fixture(scope="module")
def meadow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the package of the page is installed."""
    source = tmp_path_factory.mktemp("meadow")
    (source / "meadow").mkdir()
    (source / "meadow" / "__init__.py").touch()
    for path, text in re.findall(r"```(?:python|toml)\n# (\S+)\n(.*?)```", PAGE, re.DOTALL):
        (source / path).write_text(text)
    target = source / "installed"
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True)
    return target


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a config of the package's names and 32 pictures."""
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    (tmp_path / "config.toml").write_text(CONFIG)
    with (tmp_path / "data" / "metadata.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["file_name", "split", "height"])
        for index in range(32):
            height = rng.integers(1, 8)
            image = np.zeros((8, 8), np.uint8)
            image[:height] = 200
            Image.fromarray(image).save(tmp_path / "data" / f"{index}.png")
            table.writerow([f"{index}.png", ("train", "train", "validation", "test")[index % 4], height])
    return tmp_path


def run_commands(*commands: list[str], cwd: Path, installed: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs command lines in one process, so that TensorFlow loads once; stops at the first that fails."""
    paths = [*([str(installed)] if installed else []), os.environ.get("PYTHONPATH", "")]
    program = "import json, sys\nfrom probrt.runtime import cli\n"
    program += "sys.exit(next((code for words in json.loads(sys.argv[1]) if (code := cli.call(words))), 0))"
    return subprocess.run(
        [sys.executable, "-c", program, json.dumps(commands)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_package_goes_from_training_to_predictions(meadow: Path, project: Path) -> None:
    trained = run_commands(*COMMANDS, cwd=project, installed=meadow)
    assert trained.returncode == 0, trained.stderr
    model = json.loads((project / "model" / "model.json").read_text())
    assert model["heads"][0]["likelihood"] == "logistic"
    assert '"triangular"' in (project / "model" / "architecture.json").read_text()

    predict = ["predict", "data", "--samples", "8"]
    theirs = run_commands(
        [*predict, "--engine", "meadow"], ["heads", "artifacts/fields/1"], cwd=project, installed=meadow
    )
    assert theirs.returncode == 0, theirs.stderr
    assert "height: logistic" in theirs.stdout
    rows = read_rows(project / "predictions.jsonl")
    assert {row["engine"] for row in rows} == {"meadow"}

    # A process without the package: the manifest states the head's kind, and graphs are all that a bundle holds.
    bare = run_commands([*predict, "--out", "bare.jsonl"], cwd=project)
    assert bare.returncode == 0, bare.stderr
    for row, other in zip(rows, read_rows(project / "bare.jsonl"), strict=True):
        np.testing.assert_allclose(row["heads"]["height"]["mean"], other["heads"]["height"]["mean"], rtol=1e-6)
        assert row["heads"]["height"]["total"] > 0
    again = run_commands(["evaluate", "model", "--overwrite"], cwd=project)
    assert again.returncode == 2
    assert "nothing here defines the head 'logistic'; install the package that does" in again.stderr


def read_rows(path: Path) -> list[dict]:
    """The rows of a JSONL file, by file name."""
    return sorted((json.loads(line) for line in path.read_text().splitlines()), key=lambda row: row["file"])


def load_writer() -> ModuleType:
    """docs/write_extend.py as a module."""
    spec = importlib.util.spec_from_file_location("write_extend", TOP / "docs" / "write_extend.py")
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    return writer


def test_the_page_lists_what_every_class_defines() -> None:
    writer = load_writer()
    assert writer.write_page(PAGE) == PAGE, "docs/extend.md is out of date: python docs/write_extend.py"
    for section, bases in writer.SECTIONS.items():
        text = PAGE.split(f"<!-- {section} -->")[1].split(f"<!-- end of {section} -->")[0]
        for base in bases:
            for name in writer.public_members(base):
                (row,) = re.findall(rf"\| `{name}[`(].*", text.split(f"| `{base.__name__}` | | |")[1].split("\n\n")[0])
                assert not row.endswith("|  |"), f"{section}: {base.__name__}.{name} has no description"


def test_the_package_names_every_group() -> None:
    groups = set(re.findall(r'entry-points\."(probrt\.\w+)"', PAGE))
    assert groups == {
        f"probrt.{kind}" for kind in ("heads", "posteriors", "priors", "backbones", "engines", "commands")
    }
