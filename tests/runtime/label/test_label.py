"""`probrt label` on real images and a real bundle: the table, the page and the tasks."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shapes import GOLDEN

from probrt.runtime import read_image
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.engines.table import BUILT_IN
from probrt.runtime.label.batchbald import choose_batch
from probrt.runtime.predict.trial import trust_files

DRAWS, TAKE = 16, 6


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A committed bundle with the signature `draws`: 16 x 16, grey, heads digit, slant and ink."""
    folder = tmp_path_factory.mktemp("artifacts") / "digits" / "1"
    shutil.copytree(GOLDEN / "bundle", folder)
    opened = Bundle.open(folder)
    trust_files(opened)
    return opened


@pytest.fixture(scope="module")
def probabilities(digits: Bundle, pictures: Path) -> tuple[list[str], np.ndarray]:
    """The labels of all pictures under each draw, from the signature itself."""
    files = sorted(str(path) for path in pictures.rglob("*.png"))
    images = np.stack([read_image(Path(file).read_bytes(), digits.manifest.input) for file in files])
    (tensorflow,) = (engine for engine in BUILT_IN if engine.name == "tensorflow")
    graph = tensorflow.load_graph(digits, tuple(digits.files("savedmodel", None, "float32")), "cpu", 1)
    assert digits.manifest.posterior is not None
    inputs = {
        "images": images,
        "num_samples": np.array([DRAWS], np.int32),
        "seed": np.array([digits.manifest.posterior.seed], np.int32),
    }
    return files, graph(inputs, "draws")["digit.mean"]


def test_table_page_and_tasks(
    called: Callable[..., Any], digits: Bundle, mixed: Path, pictures: Path, tmp_path: Path,
    probabilities: tuple[list[str], np.ndarray],
) -> None:  # fmt: skip
    words = ["label", pictures, "--bundle", digits.path, "--take", TAKE, "--draws", DRAWS, "--quiet"]
    call = called(*words, "--page", "next.html", "--label-studio", "tasks.json", cwd=tmp_path)
    assert call.code == 0, call.err
    assert f"{TAKE} of 20 images to label" in call.out
    with (tmp_path / "to_label.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    files, labels = probabilities
    chosen = choose_batch(labels, TAKE)
    assert [row["file"] for row in rows] == [files[choice.index] for choice in chosen]
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, TAKE + 1)]
    np.testing.assert_allclose(
        [float(row["information"]) for row in rows], [choice.information for choice in chosen], rtol=1e-4, atol=1e-7
    )
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert [task["data"]["image"] for task in tasks] == ["/data/local-files/?d=" + row["file"] for row in rows]
    assert [task["predictions"][0]["result"][0]["value"]["choices"] for task in tasks] == [
        [row["label"]] for row in rows
    ]
    assert "data:image/" in (tmp_path / "next.html").read_text()
    again = called(*words, cwd=tmp_path)
    assert again.code == 2
    assert "to_label.csv exists" in again.err
    broken = called("label", mixed, *words[2:], "--out", "mixed.csv", cwd=tmp_path)
    assert broken.code == 1  # some files there are no images
    assert f"{TAKE} of " in broken.out


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--head", "ink"], "--head ink: choose one of digit"),
        (["--novel", "0.5"], "the bundle has no novelty"),
        (["--novel", "2"], "a share from 0 to 1"),
        (["--out", "a.json"], "the name of a .csv"),
    ],
)
def test_refusals(
    called: Callable[..., Any], digits: Bundle, pictures: Path, tmp_path: Path, options: list[str], fault: str
) -> None:
    call = called("label", pictures, "--bundle", digits.path, *options, cwd=tmp_path)
    assert call.code == 2
    assert fault in call.err
    assert call.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_bundle_without_a_saved_model_is_refused(
    called: Callable[..., Any], bundle: Bundle, pictures: Path, tmp_path: Path, rewrite: Callable[..., Bundle]
) -> None:
    copy = tmp_path / "shapes" / "1"
    shutil.copytree(bundle.path, copy, ignore=shutil.ignore_patterns("*.pb", "variables", "assets.extra"))
    rewrite(copy)
    call = called("label", pictures, "--bundle", copy, cwd=tmp_path)
    assert call.code == 2
    assert "holds no SavedModel, which alone gives single draws; export it again with" in call.err
