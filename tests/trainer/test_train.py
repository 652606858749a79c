"""`probrt train` on a small image folder learns every head, and its errors name the fault."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from probrt.trainer import store

CONFIG = """
name = "shapes"
[data]
folder = "data"
shift = 1
[input]
shape = [12, 12, 1]
colour = "grey"
resize = "bilinear"
range = [0, 255]
[backbone]
name = "conv"
widths = [8, 8]
[[heads]]
name = "kind"
likelihood = "categorical"
labels = ["bar", "pole"]
[[heads]]
name = "bright"
likelihood = "normal"
[[heads]]
name = "ink"
likelihood = "bernoulli"
per_position = true
weight = 0.05
[fit]
epochs = 48
batch = 16
learning_rate = 1e-2
kl_weight = 0.01
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns a folder of 96 pictures of a bright bar or pole, with a table; every eighth row lacks a label."""
    rng = np.random.default_rng(0)
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "config.toml").write_text(CONFIG)
    with (data / "metadata.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["file_name", "split", "kind", "bright", "ink"])
        for index in range(96):
            ink = np.zeros((12, 12), np.uint8)
            position, bright = rng.integers(3, 9), rng.integers(120, 255)
            kind = ("bar", "pole")[index % 2]
            ink[position - 1 : position + 1, 2:10] = 1
            ink = ink if kind == "bar" else ink.T
            Image.fromarray((ink * bright).astype(np.uint8)).save(data / f"{index}.png")
            Image.fromarray(ink * 255).save(data / f"{index}.ink.png")
            label = "" if index % 8 == 7 else kind
            split = "train" if index < 64 else "validation"
            table.writerow([f"{index}.png", split, label, bright / 100, f"{index}.ink.png"])
    return tmp_path


def probrt(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "probrt"
    return subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=False, cwd=cwd)


def test_training_learns_every_head(folder: Path, called: Callable[..., Any]) -> None:
    process = probrt("train", "config.toml", "--out", "model", cwd=folder)
    assert process.returncode == 0, process.stderr
    assert "epoch  48/48" in process.stdout
    model, stored = store.load_model(folder / "model")
    metrics = stored.provenance["metrics"]["validation"]
    assert metrics["kind"] > 0.9
    # The targets' standard deviation is 0.39; a head that learned nothing would have an error of 0.33.
    assert metrics["bright"] < 0.2
    assert metrics["ink"] > 0.8
    assert model.heads[1].spread[0] == pytest.approx(0.39, abs=0.05)
    assert {calibration.head for calibration in model.calibration} == {"kind", "bright", "ink"}
    again = called("train", "config.toml", "--out", "model", cwd=folder)
    assert again.code == 2
    assert "--overwrite" in again.err


def test_weights_that_do_not_suit_the_network_are_refused(folder: Path, called: Callable[..., Any]) -> None:
    """Only building the network shows that the estimator does not suit feature maps."""
    (folder / "config.toml").write_text(CONFIG + '[weights]\nestimator = "local_reparameterization"\n')
    result = called("train", "config.toml", "--out", "model", cwd=folder)
    assert result.code == 2
    assert result.err.startswith("probrt: config.toml: the model cannot be built: stage1_conv1: local_reparam")
    assert result.err.count("\n") == 1


def test_every_fault_of_the_data_is_listed_at_once(folder: Path, called: Callable[..., Any]) -> None:
    table = folder / "data" / "metadata.csv"
    lines = table.read_text().splitlines()
    lines[3] = lines[3].replace("bar", "blob")
    lines[5] = lines[5].replace("train", "practice")
    lines[7] = lines[7].replace("6.png", "none.png", 1)
    table.write_text("\n".join(lines) + "\n")
    (folder / "data" / "10.png").write_bytes(b"not a picture")
    (folder / "data" / "12.ink.png").unlink()
    Image.new("L", (5, 5)).save(folder / "data" / "14.ink.png")
    result = called("train", "config.toml", "--out", "model", cwd=folder)
    assert result.code == 2
    assert result.err.count("\n") == 1
    for text in (
        "6 faults", "row 4: 2.png: kind: class 'blob' is none of bar, pole", "row 6: split is 'practice'",
        "row 8: none.png: cannot be read: No such file", "row 12: 10.png", "row 14: 12.png: ink: cannot be read",
        "row 16: 14.png: ink: a mask of sides [5, 5]; the image has [12, 12]",
    ):  # fmt: skip
        assert text in result.err
    assert not (folder / "model").exists()


def test_a_missing_column_and_a_wrong_type(folder: Path, called: Callable[..., Any]) -> None:
    table = folder / "data" / "metadata.csv"
    table.write_text(table.read_text().replace("bright", "shine", 1))
    result = called("train", "config.toml", cwd=folder)
    assert (result.code, "no column 'bright'" in result.err) == (2, True)
    (folder / "config.toml").write_text(CONFIG.replace("epochs = 48", 'epochs = "40"'))
    result = called("train", "config.toml", cwd=folder)
    assert result.code == 2
    assert (
        result.err == "probrt: config.toml: fit.epochs: invalid enum value '40'; choose from auto, or give a number\n"
    )
