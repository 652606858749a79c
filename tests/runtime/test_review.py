"""`probrt predict --max-risk`: which rows are for review, in every format, and what cannot be."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from probrt.runtime import cli
from probrt.runtime.bundle import Bundle
from probrt.runtime.manifest import Calibration, RiskPoint


def predict(bundle: Bundle, out: Path, *words: object) -> int:
    fixed = ["predict", "--bundle", str(bundle.path), "--out", str(out), "--engine", "litert", "--quiet"]
    return cli.call([*fixed, *map(str, words)])


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def reviewed(bundle: Bundle, pictures: Path, tmp_path: Path, rewrite: Callable[..., Bundle]) -> tuple[Bundle, float]:
    """The bundle with a risk curve whose middle threshold parts the pictures in two halves."""
    assert predict(bundle, tmp_path / "plain.jsonl", pictures, "--maps", "none") == 0
    totals = sorted(row["heads"]["shape"]["total"] for row in rows(tmp_path / "plain.jsonl"))
    middle = (totals[9] + totals[10]) / 2
    curve = [
        RiskPoint(threshold=totals[0] / 2, kept=0.1, risk=0.01),
        RiskPoint(threshold=middle, kept=0.5, risk=0.05),
        RiskPoint(threshold=totals[-1] + 1, kept=1.0, risk=0.2),
    ]
    folder = tmp_path / "risky" / "1"
    shutil.copytree(bundle.path, folder)
    return rewrite(folder, calibration=[Calibration(head="shape", risk=curve)]), middle


@pytest.mark.parametrize(("risk", "flagged"), [(0.01, 20), (0.049, 20), (0.05, 10), (0.19, 10), (0.2, 0), (0.9, 0)])
def test_rows_above_the_threshold_of_a_risk_are_for_review(
    reviewed: tuple[Bundle, float], pictures: Path, tmp_path: Path, risk: float, flagged: int
) -> None:
    bundle, middle = reviewed
    assert predict(bundle, tmp_path / "p.jsonl", pictures, "--max-risk", risk) == 0
    found = rows(tmp_path / "p.jsonl")
    assert sum(row["review"] for row in found) == flagged
    if flagged == 10:
        assert [row["review"] for row in found] == [row["heads"]["shape"]["total"] > middle for row in found]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_review_stands_in_every_format_and_in_the_summary(
    reviewed: tuple[Bundle, float], mixed: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"p.{suffix}"
    words = ["--bundle", str(reviewed[0].path), "--engine", "litert", "--max-risk", "0.05", str(mixed)]
    assert cli.call(["predict", *words, "--out", str(out)]) == 1
    if suffix == "jsonl":
        found = [(row["status"], row["review"]) for row in rows(out)]
    elif suffix == "csv":
        with out.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            found = [(row["status"], json.loads(row["review"])) for row in csv.DictReader(stream)]
    else:
        table = pytest.importorskip("pyarrow.parquet").read_table(out).to_pylist()
        found = [(row["status"], row["review"]) for row in table]
    assert all(flag for status, flag in found if status == "error")
    assert {flag for status, flag in found if status == "ok"} == {True, False}
    assert f" {sum(flag for _, flag in found)} for review," in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_reviewed_run_is_continued_as_one(
    reviewed: tuple[Bundle, float], mixed: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"p.{suffix}"
    assert predict(reviewed[0], out, mixed, "--max-risk", 0.05) == 1
    whole = out.read_bytes()
    out.write_bytes(whole[: len(whole) // 2])
    assert predict(reviewed[0], out, mixed, "--resume") == 2
    assert "has a review flag" in capsys.readouterr().err
    assert predict(reviewed[0], out, mixed, "--resume", "--max-risk", 0.05) == 1
    assert out.read_bytes() == whole


def test_what_cannot_be_reviewed_says_what_can(
    bundle: Bundle, reviewed: tuple[Bundle, float], pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for opened, words, message in (
        (bundle, ("--max-risk", 0.02), "the bundle holds no risk curve, which `probrt train` writes for categorical"),
        (reviewed[0], ("--max-risk", 0.005), "shape errs in 0.0100 of its most certain 10% already; ask for that"),
        (reviewed[0], ("--max-risk", 0.05, "--variant", "mean"), "the posterior mean knows no total uncertainty"),
        (reviewed[0], ("--max-risk", 1.5), "from 0 to below 1"),
        (reviewed[0], ("--max-risk", "nan"), "from 0 to below 1"),
    ):
        assert predict(opened, tmp_path / "p.jsonl", pictures, *words) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "p.jsonl").exists()
