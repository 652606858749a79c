"""`probrt calibrate MODEL DATA`: a model directory is calibrated anew on a folder of labelled images."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from probrt.trainer import store

MODEL = Path(__file__).parent.parent / "golden" / "format-1" / "model"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    shutil.copytree(MODEL, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def data(model: Path, tmp_path: Path) -> Path:
    """Eighty images of noise, labelled by chance, without masks."""
    folder = tmp_path / "data"
    folder.mkdir()
    labels = next(head.labels for head in store.load_model(model)[0].heads if head.name == "digit")
    rng = np.random.default_rng(0)
    lines = ["file_name,digit,slant,ink"]
    for index in range(80):
        Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).save(folder / f"{index}.png")
        lines.append(f"{index}.png,{rng.choice(labels)},{rng.normal():.3f},")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_model_is_calibrated_on_other_images(
    model: Path, data: Path, called: Callable[..., Any], tmp_path: Path
) -> None:
    before, _ = store.load_model(model)
    files = {path.name: path.read_bytes() for path in model.iterdir()}
    done = called("calibrate", model, data, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "calibrated on 80 examples" in done.out
    after, stored = store.load_model(model)
    assert {path.name for path in model.iterdir() if path.read_bytes() != files.get(path.name)} == {"model.json"}
    assert stored.provenance["calibration"]["examples"] == 80
    records = {record.head: record for record in after.calibration}
    assert {record.method for record in records["digit"].conformal} == {"lac", "aps", "raps"}
    assert records["digit"].temperature > {record.head: record for record in before.calibration}["digit"].temperature
    assert records["ink"].conformal == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "no such folder of labelled images"),
        (
            lambda folder: (folder / "metadata.csv").write_text("file_name,digit,slant,ink\n0.png,,,\n"),
            "no example has a target of digit, slant, ink",
        ),
        (lambda folder: (folder / "metadata.csv").write_text("file_name,digit\n0.png,3\n"), "slant"),
    ],
    ids=["absent", "unlabelled", "columns"],
)
def test_a_folder_without_targets_is_refused(
    model: Path,
    data: Path,
    called: Callable[..., Any],
    tmp_path: Path,
    change: Callable[[Path], object],
    message: str,
) -> None:
    content = (model / "model.json").read_bytes()
    change(data)
    done = called("calibrate", model, data, cwd=tmp_path)
    assert (done.code, message in done.err, done.err.count("\n")) == (2, True, 1), done.err
    assert (model / "model.json").read_bytes() == content
