"""`probrt predict --max-risk` and `--coverage`: flags and sets in every format, and refusals."""

import csv
import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from probrt.runtime import cli
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import Calibration, Conformal, RiskPoint


def predict(bundle: Bundle, out: Path, *words: object) -> int:
    fixed = ["predict", "--bundle", str(bundle.path), "--out", str(out), "--engine", "litert", "--quiet"]
    return cli.call([*fixed, *map(str, words)])


def read_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def risk_bundle(bundle: Bundle, pictures: Path, tmp_path: Path, rewrite: Callable[..., Bundle]) -> tuple[Bundle, float]:
    """The bundle with a risk curve whose middle threshold splits the pictures into two halves."""
    assert predict(bundle, tmp_path / "plain.jsonl", pictures, "--maps", "none") == 0
    totals = sorted(row["heads"]["shape"]["total"] for row in read_rows(tmp_path / "plain.jsonl"))
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
    risk_bundle: tuple[Bundle, float], pictures: Path, tmp_path: Path, risk: float, flagged: int
) -> None:
    bundle, middle = risk_bundle
    assert predict(bundle, tmp_path / "p.jsonl", pictures, "--max-risk", risk) == 0
    written = read_rows(tmp_path / "p.jsonl")
    assert sum(row["review"] for row in written) == flagged
    if flagged == 10:
        assert [row["review"] for row in written] == [row["heads"]["shape"]["total"] > middle for row in written]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_review_stands_in_every_format_and_in_the_summary(
    risk_bundle: tuple[Bundle, float], mixed: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"p.{suffix}"
    words = ["--bundle", str(risk_bundle[0].path), "--engine", "litert", "--max-risk", "0.05", str(mixed)]
    assert cli.call(["predict", *words, "--out", str(out)]) == 1
    if suffix == "jsonl":
        flags = [(row["status"], row["review"]) for row in read_rows(out)]
    elif suffix == "csv":
        with out.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            flags = [(row["status"], json.loads(row["review"])) for row in csv.DictReader(stream)]
    else:
        table = pytest.importorskip("pyarrow.parquet").read_table(out).to_pylist()
        flags = [(row["status"], row["review"]) for row in table]
    assert all(flag for status, flag in flags if status == "error")
    assert {flag for status, flag in flags if status == "ok"} == {True, False}
    assert f" {sum(flag for _, flag in flags)} for review," in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_reviewed_run_is_continued_as_one(
    risk_bundle: tuple[Bundle, float],
    mixed: Path,
    tmp_path: Path,
    suffix: str,
    capsys: pytest.CaptureFixture[str],
    stop_after_writes: Callable[[int], AbstractContextManager[None]],
) -> None:
    out = tmp_path / f"p.{suffix}"
    words = (mixed, "--batch-size", 3)
    assert predict(risk_bundle[0], out, *words, "--max-risk", 0.05) == 1
    whole = out.read_bytes()
    with stop_after_writes(3):
        assert predict(risk_bundle[0], out, *words, "--overwrite", "--max-risk", 0.05) == 130
    assert predict(risk_bundle[0], out, *words, "--resume") == 2
    assert "max risk was 0.05, now none" in capsys.readouterr().err
    assert predict(risk_bundle[0], out, *words, "--resume", "--max-risk", 0.05) == 1
    assert out.read_bytes() == whole


def test_what_cannot_be_reviewed_says_what_can(
    bundle: Bundle,
    risk_bundle: tuple[Bundle, float],
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for opened, words, message in (
        (bundle, ("--max-risk", 0.02), "the bundle holds no risk curve, which `probrt train` writes for heads"),
        (risk_bundle[0], ("--max-risk", 0.005), "shape errs in 0.0100 of its most certain 10% already; ask for that"),
        (risk_bundle[0], ("--max-risk", 0.05, "--variant", "mean"), "the posterior mean knows no total uncertainty"),
        (risk_bundle[0], ("--max-risk", 1.5), "from 0 to below 1"),
        (risk_bundle[0], ("--max-risk", "nan"), "from 0 to below 1"),
    ):
        assert predict(opened, tmp_path / "p.jsonl", pictures, *words) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "p.jsonl").exists()


def test_heads_of_every_kind_are_reviewed_by_the_average_of_their_total(
    bundle: Bundle, pictures: Path, tmp_path: Path, rewrite: Callable[..., Bundle]
) -> None:
    """The threshold of ink, a map, is on the mean over positions; that of slant, a real number, on the variance."""
    assert predict(bundle, tmp_path / "plain.jsonl", pictures, "--maps", "npy") == 0
    written = [row["heads"] for row in read_rows(tmp_path / "plain.jsonl")]
    ink = [float(np.load(heads["ink"]["total"]).mean()) for heads in written]
    slant = [heads["slant"]["total"] for heads in written]
    middles = [float(np.median(values)) for values in (ink, slant)]
    folder = tmp_path / "risky" / "1"
    shutil.copytree(bundle.path, folder)
    curves = [[RiskPoint(threshold=middle, kept=0.5, risk=0.1)] for middle in middles]
    calibration = [Calibration(head=name, risk=curve) for name, curve in zip(("ink", "slant"), curves, strict=True)]
    risky = rewrite(folder, calibration=calibration)
    assert predict(risky, tmp_path / "p.jsonl", pictures, "--max-risk", 0.1, "--maps", "none") == 0
    expected = [a > middles[0] or b > middles[1] for a, b in zip(ink, slant, strict=True)]
    assert [row["review"] for row in read_rows(tmp_path / "p.jsonl")] == expected
    assert 0 < sum(expected) < 20


def test_coverage_chooses_among_the_calibrated_ones(
    bundle: Bundle,
    pictures: Path,
    tmp_path: Path,
    rewrite: Callable[..., Bundle],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "sure" / "1"
    shutil.copytree(bundle.path, folder)
    sets = [Conformal(coverage=c, method="lac", threshold=t) for c, t in ((0.5, 0.2), (0.9, 0.999))]
    halves = [Conformal(coverage=c, method="absolute", threshold=t) for c, t in ((0.5, 1.0), (0.9, 2.0))]
    calibration = [Calibration(head="shape", conformal=sets), Calibration(head="slant", conformal=halves)]
    sure = rewrite(folder, calibration=calibration)
    widths = {}
    for coverage in ((), ("--coverage", 0.9), ("--coverage", 0.5)):
        out = tmp_path / f"p{len(widths)}.jsonl"
        assert predict(sure, out, pictures, "--maps", "none", *coverage) == 0
        heads = [row["heads"] for row in read_rows(out)]
        assert {head["coverage"] for row in heads for head in row.values()} == {coverage[1] if coverage else 0.9}
        low, high = heads[0]["slant"]["interval"]
        widths[coverage] = (round(high - low, 4), sum(len(row["shape"]["set"]) for row in heads))
    assert [width for width, _ in widths.values()] == [4.0, 4.0, 2.0]
    assert widths[()] == widths[("--coverage", 0.9)]
    assert widths[()][1] > widths[("--coverage", 0.5)][1]
    for coverage, message in ((0.8, "shape is calibrated for 0.5, 0.9; choose one"), (1.0, "above 0 and below 1")):
        assert predict(sure, tmp_path / "no.jsonl", pictures, "--coverage", coverage) == 2
        assert message in capsys.readouterr().err
    assert predict(sure, tmp_path / "p0.jsonl", pictures, "--maps", "none", "--resume", "--coverage", 0.5) == 2
    assert "coverage was none, now 0.5" in capsys.readouterr().err
    several = [*sets, Conformal(coverage=0.9, method="aps", threshold=2.0)]
    sure = rewrite(folder, calibration=[Calibration(head="shape", conformal=several)])
    assert predict(sure, tmp_path / "a.jsonl", pictures, "--maps", "none", "--conformal", "aps") == 0
    assert {len(row["heads"]["shape"]["set"]) for row in read_rows(tmp_path / "a.jsonl")} == {3}
    assert predict(sure, tmp_path / "no.jsonl", pictures, "--conformal", "raps") == 2
    assert "--conformal raps: choose from aps, lac" in capsys.readouterr().err
    assert predict(sure, tmp_path / "no.jsonl", pictures, "--coverage", 0.7) == 2
    assert "shape is calibrated for 0.5, 0.9; choose one" in capsys.readouterr().err
    # A real-valued head without calibration: the quartiles of a normal.
    plain = rewrite(folder, calibration=[])
    assert predict(plain, tmp_path / "n.jsonl", pictures / "00.png", "--coverage", 0.5, "--maps", "none") == 0
    (row,) = read_rows(tmp_path / "n.jsonl")
    low, high = row["heads"]["slant"]["interval"]
    assert (high - low) / 2 == pytest.approx(0.6744898 * row["heads"]["slant"]["total"] ** 0.5, rel=1e-5)
    assert "set" not in row["heads"]["shape"]
