"""`probrt predict --overlay`: what the picture shows, and where its path stands."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from probrt.runtime import cli
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import HeadRecord
from probrt.runtime.images.decode import read_image
from probrt.runtime.predict.predictor import load_predictor
from probrt.runtime.rows.overlay import draw_novelty, draw_overlay

INK = HeadRecord(
    name="ink", likelihood="bernoulli", kind="binary", combine="entropy", per_position=True, labels=["ink"],
    outputs={name: [None, None, 1] for name in ("mean", "total", "aleatoric", "epistemic")},
)  # fmt: skip
KIND = HeadRecord(
    name="kind", likelihood="categorical", kind="class", combine="entropy", per_position=True, labels=["a", "b", "c"],
    outputs={"mean": [None, None, 3], "aleatoric": [None, None]},
)  # fmt: skip


def test_certain_parts_are_the_image_and_doubt_is_red() -> None:
    pixels = np.arange(64, dtype=np.float32).reshape(8, 8, 1)
    mean = np.zeros((8, 8, 1), np.float32)
    doubt = np.zeros((8, 8, 1), np.float32)
    doubt[2, 3], doubt[5, 6] = np.log(2), np.log(2) / 2
    picture = draw_overlay(pixels, (0, 255), INK, {"mean": mean, "epistemic": doubt})
    grey = np.repeat(pixels, 3, axis=-1)
    expected = grey.copy()
    expected[2, 3], expected[5, 6] = (255, 0, 0), (grey[5, 6] + (255, 0, 0)) / 2
    np.testing.assert_allclose(picture, expected, atol=0.5)


def test_regions_are_outlined_whatever_the_size_of_the_map() -> None:
    mean = np.zeros((4, 4, 3), np.float32)
    mean[:, :2, 1] = mean[:, 2:, 2] = 1
    picture = draw_overlay(np.zeros((8, 8, 3), np.float32), (0, 255), KIND, {"mean": mean, "aleatoric": mean[..., 0]})
    np.testing.assert_array_equal(picture[:, 3], [(0, 255, 255)] * 8)
    assert not picture[:, [0, 1, 2, 4, 5, 6, 7]].any()


def test_new_places_are_yellow_whatever_the_size_of_the_map() -> None:
    """From two standard deviations on, fully from six; a map of half the size covers two pixels each way."""
    pixels = np.full((8, 6, 1), 100, np.float32)
    scores = np.array([[0, -50, 2], [4, 6, 1e4], [0, 0, 0], [0, 0, 0]], np.float32)
    picture = draw_novelty(pixels, (0, 200), scores)
    assert (picture[:2] == 128).all()
    assert (picture[2:4, :2] == (191, 191, 64)).all()
    assert (picture[2:4, 2:] == (255, 255, 0)).all()
    assert (picture[4:] == 128).all()


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_rows_name_the_overlays(bundle: Bundle, pictures: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"p.{suffix}"
    words = ["--bundle", str(bundle.path), "--engine", "litert", "--quiet", "--out", str(out), "--overlay"]
    assert cli.call(["predict", *words, str(pictures)]) == 0
    if suffix == "jsonl":
        overlays = [
            (row["file"], row["heads"]["ink"]["overlay"]) for row in map(json.loads, out.read_text().splitlines())
        ]
    elif suffix == "csv":
        overlays = [(row["file"], row["ink.overlay"]) for row in csv.DictReader(out.read_text().splitlines())]
    else:
        table = pytest.importorskip("pyarrow.parquet").read_table(out).to_pylist()
        overlays = [(row["file"], row["ink.overlay"]) for row in table]
    images = np.stack([read_image(file, bundle.manifest.input) for file, _ in overlays])
    answer = load_predictor(bundle, engine="litert")(images)
    for index, (file, path) in enumerate(overlays):
        quantities = answer["ink"].image(index).quantities
        pixels = read_image(file, bundle.manifest.input)
        expected = draw_overlay(pixels, (0, 255), bundle.manifest.head("ink"), quantities)
        np.testing.assert_allclose(np.asarray(Image.open(path), int), expected.astype(int), atol=1)


def test_without_maps_there_is_no_overlay(
    bundle: Bundle, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--bundle", str(bundle.path), "--out", str(tmp_path / "p.jsonl"), "--overlay", "--maps", "none"]
    assert cli.call(["predict", *words, str(pictures)]) == 2
    assert "--overlay: needs maps" in capsys.readouterr().err


def test_a_run_without_overlays_is_not_continued_with_them(
    bundle: Bundle, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--bundle", str(bundle.path), "--engine", "litert", "--out", str(tmp_path / "p.csv"), str(pictures)]
    assert cli.call(["predict", *words]) == 0
    assert cli.call(["predict", *words, "--resume", "--overlay"]) == 2
    assert "overlay was off, now on" in capsys.readouterr().err
