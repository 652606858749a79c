"""`probrt replay`: rows repeat on every engine; a row, an image or a bundle that was changed is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import NAME


@pytest.fixture
def place(bundle: Bundle, pictures: Path, tmp_path: Path) -> Path:
    """A folder with the pictures and the bundle in artifacts/."""
    shutil.copytree(pictures, tmp_path / "pictures")
    shutil.copytree(bundle.path, tmp_path / "artifacts" / "shapes" / "1")
    return tmp_path


def predict(called: Callable[..., Any], place: Path, *words: object, out: str = "rows.jsonl") -> None:
    fixed = ("predict", "pictures", "--maps", "none", "--quiet", "--out", out)
    assert called(*fixed, *words, cwd=place).code == 0


@pytest.mark.parametrize(
    ("words", "again"),
    [
        (("--engine", "litert"), ()),
        (("--engine", "litert", "--samples", 4), ("--engine", "onnxruntime")),
        (("--engine", "onnxruntime", "--variant", "mean"), ("--engine", "litert")),
        (("--engine", "litert", "--variant", "sampled", "--seed", 3, "--samples", 12), ("--engine", "onnxruntime")),
        (("--engine", "litert", "--tolerance", 0.05), ("--engine", "onnxruntime", "--batch-size", 3)),
    ],
    ids=["another engine by default", "few draws", "mean", "another seed", "adaptive"],
)
def test_rows_repeat_on_another_engine(
    place: Path, called: Callable[..., Any], words: tuple[object, ...], again: tuple[object, ...]
) -> None:
    predict(called, place, *words)
    done = called("replay", "rows.jsonl", *again, cwd=place)
    assert done.code == 0, done.out + done.err
    assert done.out.splitlines()[-1].startswith("20 rows repeated on ")
    assert done.out.splitlines()[-1].endswith(": none differ")
    assert words[1] not in done.out.splitlines()[-1]
    assert "shape.mean" in done.out
    assert max(map(len, done.out.splitlines())) <= 80


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_rows_of_every_format_repeat(place: Path, called: Callable[..., Any], suffix: str) -> None:
    predict(called, place, "--engine", "litert", out=f"rows.{suffix}")
    assert called("replay", f"rows.{suffix}", "--engine", "litert", cwd=place).code == 0


def test_a_changed_row_and_a_changed_image_are_named(place: Path, called: Callable[..., Any]) -> None:
    predict(called, place, "--engine", "litert")
    rows = [json.loads(line) for line in (place / "rows.jsonl").read_text().splitlines()]
    rows[3]["heads"]["slant"]["mean"] += 0.01
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copy(place / rows[0]["file"], place / rows[5]["file"])
    (place / rows[7]["file"]).unlink()
    done = called("replay", "rows.jsonl", "--engine", "litert", cwd=place)
    assert done.code == 1
    assert f"{rows[3]['file']}: slant.mean differs by 0.01, allowed " in done.out
    assert f"{rows[5]['file']}: the image has changed since the row was written" in done.out
    assert f"{rows[7]['file']}: the image cannot be read any more" in done.out
    assert done.out.splitlines()[-1] == "18 rows repeated on litert: 3 differ"


def test_a_changed_bundle_and_other_rows_are_refused(
    place: Path, called: Callable[..., Any], rewrite: Callable[..., Bundle]
) -> None:
    predict(called, place, "--engine", "litert")
    folder = place / "artifacts" / "shapes" / "1"
    manifest = (folder / NAME).read_bytes()
    rewrite(folder, probrt="0.1.1")
    done = called("replay", "rows.jsonl", cwd=place)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "artifacts/shapes/1: is another bundle than the one that wrote rows.jsonl" in done.err
    (folder / NAME).write_bytes(manifest)
    text = (place / "rows.jsonl").read_text()
    (place / "other.jsonl").write_text(text.replace("shapes/1", "shapes/2"))
    done = called("replay", "other.jsonl", cwd=place)
    assert (done.code, "artifacts/shapes/2: no such bundle" in done.err) == (2, True)
    done = called("replay", "other.jsonl", "--bundle", folder, cwd=place)
    assert (done.code, "rows of shapes/2, not of shapes/1" in done.err) == (2, True)
    (place / "empty.jsonl").write_text("")
    assert called("replay", "empty.jsonl", cwd=place).code == 2
    (place / "copy.jsonl").write_text(text)  # without the record of its run
    done = called("replay", "copy.jsonl", "--engine", "litert", cwd=place)
    assert (done.code, "copy.jsonl.run.json is missing" in done.err) == (0, True)
