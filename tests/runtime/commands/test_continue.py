"""`probrt predict --continue`: rows of a device that has the first draws alone, continued where the whole bank is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import NAME, RiskPoint

FEW, ALL = 4, 8


@pytest.fixture
def place(bundle: Bundle, pictures: Path, tmp_path: Path) -> Path:
    """Pictures, the whole bundle in artifacts/, and device/: the same with the first chunk of the bank alone."""
    for folder in (tmp_path, tmp_path / "device"):
        shutil.copytree(pictures, folder / "pictures")
    shutil.copytree(bundle.path, tmp_path / "artifacts" / "shapes" / "1")
    (tmp_path / "device" / "artifacts" / "shapes" / "1").mkdir(parents=True)
    for name in (NAME, "draws-00.tflite"):
        shutil.copy(bundle.path / name, tmp_path / "device" / "artifacts" / "shapes" / "1" / name)
    return tmp_path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def predict(called: Callable[..., Any], place: Path, *words: object, code: int = 0) -> str:
    done = called("predict", "--engine", "litert", *words, cwd=place)
    assert done.code == code, done.out + done.err
    return done.err


def write_device_rows(called: Callable[..., Any], place: Path, *words: object, out: str = "rows.jsonl") -> None:
    """Predicts on the device and brings the rows to the server, with the record of the run."""
    lacking = predict(called, place / "device", "pictures", "--out", "none.jsonl", code=2)
    assert "draws-01.tflite: missing; ask for the draws that are there with --samples" in lacking
    predict(called, place / "device", "pictures", "--samples", FEW, "--maps", "none", "--out", out, *words)
    for name in (out, f"{out}.run.json"):
        shutil.copy(place / "device" / name, place / name)


def test_the_rows_above_the_tolerance_are_those_of_all_draws_at_once(place: Path, called: Callable[..., Any]) -> None:
    write_device_rows(called, place)
    predict(called, place, "pictures", "--samples", ALL, "--maps", "none", "--out", "all.jsonl")
    before, once = read(place / "rows.jsonl"), read(place / "all.jsonl")
    errors = [(row["heads"]["slant"]["epistemic"] / (FEW - 1)) ** 0.5 for row in before]
    limit = sorted(errors)[12] * (1 + 1e-6)
    needed = [error > limit for error in errors]
    stderr = predict(called, place, "--continue", "rows.jsonl", "--tolerance", f"slant={limit}", "--out", "more.jsonl")
    more = read(place / "more.jsonl")
    assert more == [a if need else b for a, b, need in zip(once, before, needed, strict=True)]
    assert f"{sum(needed)} rows need draws" in stderr
    assert called("replay", "more.jsonl", "--engine", "onnxruntime", cwd=place).code == 0


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_every_format_is_read_and_written(place: Path, called: Callable[..., Any], suffix: str) -> None:
    write_device_rows(called, place, out=f"rows.{suffix}")
    write_device_rows(called, place)
    words = ("--tolerance", 0.09, "--out")
    predict(called, place, "--continue", "rows.jsonl", *words, "expected.jsonl")
    predict(called, place, "--continue", f"rows.{suffix}", *words, "more.jsonl")
    assert read(place / "more.jsonl") == read(place / "expected.jsonl")
    predict(called, place, "--continue", "rows.jsonl", *words, f"more.{suffix}")
    predict(called, place, "--continue", f"rows.{suffix}", *words, f"again.{suffix}")
    assert (place / f"again.{suffix}").read_bytes() == (place / f"more.{suffix}").read_bytes()


def test_rows_flagged_for_review_are_continued(
    place: Path, called: Callable[..., Any], rewrite: Callable[..., Bundle]
) -> None:
    write_device_rows(called, place)
    rows = read(place / "rows.jsonl")
    for index, row in enumerate(rows):
        rows[index] = {name: value for name, value in row.items() if name != "heads"}
        rows[index] |= {"review": index % 5 == 0, "heads": row["heads"]}
    (place / "flagged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stderr = predict(called, place, "--continue", "flagged.jsonl", "--out", "more.jsonl", code=2)
    assert "its rows have `review`; give the --max-risk of their run" in stderr
    folder = place / "artifacts" / "shapes" / "1"
    (calibration,) = Bundle.open(folder).manifest.calibration
    risk = [RiskPoint(threshold=0.5, kept=0.5, risk=0.0), RiskPoint(threshold=1.0, kept=1.0, risk=0.1)]
    rewrite(folder, calibration=[msgspec.structs.replace(calibration, risk=risk)])
    words = ("--maps", "none", "--max-risk", 0.05)
    predict(called, place, "--continue", "flagged.jsonl", "--out", "more.jsonl", *words)
    predict(called, place, "pictures", "--samples", ALL, "--out", "all.jsonl", *words)
    more, once = read(place / "more.jsonl"), read(place / "all.jsonl")
    assert more == [once[index] if index % 5 == 0 else row for index, row in enumerate(rows)]


def test_maps_come_with_the_continued_rows(place: Path, called: Callable[..., Any]) -> None:
    predict(called, place, "pictures", "--samples", FEW, "--out", "rows.jsonl")
    stderr = predict(called, place, "--continue", "rows.jsonl", "--tolerance", 0.09, "--out", "rows.csv", code=2)
    assert "rows.maps holds the maps of rows.jsonl" in stderr
    predict(called, place, "--continue", "rows.jsonl", "--tolerance", 0.09, "--out", "more.jsonl")
    for row in read(place / "more.jsonl"):
        ink = row["heads"]["ink"]["mean"]
        assert ink.startswith("more.maps/" if row["draws"] == ALL else "rows.maps/")
        assert (place / ink).is_file()


def test_changed_images_are_named_and_their_rows_stay(place: Path, called: Callable[..., Any]) -> None:
    write_device_rows(called, place)
    rows = read(place / "rows.jsonl")
    shutil.copy(place / rows[0]["file"], place / rows[5]["file"])
    (place / rows[7]["file"]).unlink()
    words = ("--continue", "rows.jsonl", "--tolerance", 1e-6, "--out", "more.jsonl")
    stderr = predict(called, place, *words, code=1)
    assert f"{rows[5]['file']}: the image has changed since the row was written; its row is as it was" in stderr
    assert f"{rows[7]['file']}: the image cannot be read any more; its row is as it was" in stderr
    more = read(place / "more.jsonl")
    assert [row["draws"] for row in more] == [FEW if index in (5, 7) else ALL for index in range(20)]
    shutil.rmtree(place / "pictures")
    stderr = predict(called, place, *words, "--overwrite", code=2)
    assert "none of the 20 images that need draws can be used; the first, pictures/00.png: " in stderr


def test_rows_that_cannot_be_continued_are_refused(
    place: Path, called: Callable[..., Any], rewrite: Callable[..., Bundle]
) -> None:
    write_device_rows(called, place)
    (place / "none.jsonl").write_text("")
    predict(called, place, "pictures", "--maps", "none", "--out", "done.jsonl")
    predict(called, place, "pictures", "--maps", "none", "--variant", "sampled", "--seed", 3, "--out", "seed.jsonl")

    def refuse(message: str, *words: object) -> None:
        done = called("predict", "--out", "more.jsonl", *words, cwd=place)
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
        assert message in done.err
        assert not (place / "more.jsonl").exists()

    needed = ("--tolerance", 1e-6)
    refuse("no `review`, so nothing says which need draws", "--continue", "rows.jsonl")
    refuse("its rows that need draws have 8 or more already", "--continue", "done.jsonl", *needed)
    refuse("holds no rows", "--continue", "none.jsonl", *needed)
    refuse("no such file", "--continue", "gone.jsonl", *needed)
    refuse(
        "its bank answers for seed 7 only", "--continue", "seed.jsonl", *needed, "--samples", 16, "--variant", "draws"
    )
    refuse("rows.jsonl has 7, which continued rows keep", "--continue", "rows.jsonl", *needed, "--seed", 3)
    refuse("the rows name their images", "pictures", "--continue", "rows.jsonl", *needed)
    refuse("not with --resume", "--continue", "rows.jsonl", *needed, "--resume")
    refuse("rows of heads per position hold files", "--continue", "rows.jsonl", "--tolerance", "ink=0.1")
    rewrite(place / "artifacts" / "shapes" / "1", probrt="0.1.1")
    refuse("is another bundle than the one that wrote rows.jsonl", "--continue", "rows.jsonl", *needed)


def test_rows_of_another_seed_are_continued_where_the_files_can(place: Path, called: Callable[..., Any]) -> None:
    words = ("--maps", "none", "--variant", "sampled")
    for samples in (FEW, 12):
        predict(called, place, "pictures", "--seed", 3, "--samples", samples, "--out", f"{samples}.jsonl", *words)
    more = ("--continue", f"{FEW}.jsonl", "--tolerance", 1e-6, "--samples", 12, "--out", "more.jsonl")
    predict(called, place, *more, "--variant", "sampled")
    assert read(place / "more.jsonl") == read(place / "12.jsonl")
