"""Novelty in rows, columns, summary, review and report; `--unknown` and its refusals."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from cases import BY_NAME
from exported_cases import load_case
from PIL import Image

from probrt.runtime.bundle import manifest_file
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import NAME, Calibration, NoveltyRecord, RiskPoint
from probrt.runtime.errors import UsageError
from probrt.runtime.predict.predictor import load_predictor
from probrt.runtime.rows.novelty import choose_novelty
from probrt.runtime.rows.readers import read_rows

COUNT = 12
NOISE = (0, 6)


@pytest.fixture(scope="module")
def novel() -> Bundle:
    """The case `digits`, whose novelty was fitted to smooth random images."""
    return load_case(BY_NAME["digits"]).bundle


@pytest.fixture
def images(novel: Bundle, tmp_path: Path) -> Path:
    """Images at the centre of those that novelty was fitted to, two of full noise, and a file that is no image."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(4)
    for index in range(COUNT):
        pixels = rng.integers(0, 256, novel.manifest.input.shape[:2])
        calm = 90 + 6 * index + pixels // 5
        Image.fromarray((pixels if index in NOISE else calm).astype(np.uint8)).save(folder / f"{index:02d}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("engine", ["litert", "onnxruntime"])
def test_rows_say_which_images_are_unknown(
    novel: Bundle, images: Path, tmp_path: Path, called: Callable[..., Any], engine: str, suffix: str
) -> None:
    out = tmp_path / f"p.{suffix}"
    words = ["predict", images, "--bundle", novel.path, "--engine", engine, "--out", out, "--maps", "none"]
    done = called(*words, cwd=tmp_path)
    assert done.code == 1, done.err
    smallest = 1 / (novel.manifest.novelty.images + 1)
    assert f"13 rows, 1 errors, 2 unknown (novelty p-value up to {max(0.01, smallest):.3g})" in done.err
    rows = list(read_rows(out))
    pixels = np.stack([np.asarray(Image.open(images / f"{index:02d}.png")) for index in range(COUNT)])[..., None]
    expected = load_predictor(novel, engine=engine)(pixels.astype(np.float32)).novelty
    for index, row in enumerate(rows[:COUNT]):
        assert row["novelty"]["unknown"] is (index in NOISE)
        assert row["novelty"]["score"] == pytest.approx(float(expected.score[index]), rel=1e-6, abs=1e-6)
        assert row["novelty"]["p_value"] == pytest.approx(float(expected.p_value[index]), rel=1e-6)
        assert set(row["heads"]) == {head.name for head in novel.manifest.heads if not head.per_position}
    assert rows[COUNT]["status"] == "error"
    assert not rows[COUNT].get("novelty")


def test_the_verdict_can_be_left_out(novel: Bundle, images: Path, tmp_path: Path, called: Callable[..., Any]) -> None:
    words = ["predict", images / "00.png", "--bundle", novel.path, "--engine", "litert", "--maps", "none"]
    done = called(*words, "--out", tmp_path / "p.csv", "--unknown", "off", cwd=tmp_path)
    assert (done.code, "unknown" in done.err) == (0, False)
    (row,) = csv.DictReader((tmp_path / "p.csv").read_text().splitlines())
    assert (row["novelty.score"] != "", row["novelty.p_value"] != "", "novelty.unknown" in row) == (True, True, False)
    done = called(*words, "--out", tmp_path / "p.csv", "--resume", cwd=tmp_path)
    assert (done.code, "unknown was off, now none" in done.err) == (2, True)


def test_an_unknown_image_is_for_review(
    novel: Bundle, images: Path, tmp_path: Path, called: Callable[..., Any]
) -> None:
    """With a risk curve that lets every answer pass, the unknown images are still flagged."""
    shutil.copytree(novel.path, tmp_path / "digits" / "1")
    curve = [RiskPoint(threshold=1000.0, kept=1.0, risk=0.01)]
    manifest = msgspec.structs.replace(novel.manifest, calibration=[Calibration(head="digit", risk=curve)])
    (tmp_path / "digits" / "1" / NAME).write_bytes(manifest_file.encode(manifest))
    words = ["predict", images, "--bundle", tmp_path / "digits", "--engine", "litert", "--maps", "none", "--quiet"]
    assert called(*words, "--max-risk", 0.02, "--out", tmp_path / "p.jsonl", cwd=tmp_path).code == 1
    rows = list(read_rows(tmp_path / "p.jsonl"))
    assert [index for index, row in enumerate(rows) if row["review"]] == [*NOISE, COUNT]
    assert called("report", tmp_path / "p.jsonl", cwd=tmp_path).code == 0
    page = (tmp_path / "p.html").read_text()
    data = json.loads(page.split('<script type="application/json" id="data">')[1].split("</script>")[0])
    assert [index for index, item in enumerate(data["items"]) if item.get("unknown")] == list(NOISE)
    assert data["heads"]["novelty"] == ["score", "p_value"]


def test_an_adaptive_run_keeps_the_novelty(
    novel: Bundle, images: Path, tmp_path: Path, called: Callable[..., Any]
) -> None:
    """Images that need more draws take them from chunks without novelty."""
    words = ["predict", images, "--bundle", novel.path, "--engine", "litert", "--maps", "none", "--quiet"]
    assert called(*words, "--out", tmp_path / "all.jsonl", cwd=tmp_path).code == 1
    assert called(*words, "--tolerance", 1e-9, "--out", tmp_path / "more.jsonl", cwd=tmp_path).code == 1
    rows, more = (list(read_rows(tmp_path / f"{name}.jsonl")) for name in ("all", "more"))
    assert [row.get("novelty") for row in rows] == [row.get("novelty") for row in more]


def test_levels_that_mean_nothing_are_refused(novel: Bundle) -> None:
    record = NoveltyRecord(images=99, fitted=500, method="any", stages=["a"])
    manifest = msgspec.structs.replace(novel.manifest, novelty=record)
    assert choose_novelty(manifest, None).level == 0.01
    assert choose_novelty(manifest, "0.01").level == 0.01
    assert choose_novelty(manifest, "off").level is None
    few = msgspec.structs.replace(manifest, novelty=msgspec.structs.replace(record, images=50))
    assert choose_novelty(few, None).level == pytest.approx(1 / 51)
    for asked, message in (
        ("0.01", "no p-value is below 0.0196"),
        ("0", "above 0 and below 1"),
        ("1", "above 0 and below 1"),
        ("nan", "above 0 and below 1"),
        ("many", "above 0 and below 1"),
    ):
        with pytest.raises(UsageError, match=message):
            choose_novelty(few, asked)
    without = msgspec.structs.replace(manifest, novelty=None)
    assert choose_novelty(without, None) is None
    assert choose_novelty(without, "off") is None
    with pytest.raises(UsageError, match="the bundle has no novelty"):
        choose_novelty(without, "0.01")
