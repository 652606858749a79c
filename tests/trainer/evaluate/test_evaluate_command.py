"""`probrt evaluate` on the command line: every figure of the report means what it says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from probrt.trainer import store
from probrt.trainer.evaluate.calibration_error import CalibrationError, compare_classes, compare_confidence

pytestmark = pytest.mark.slow

MODEL = Path(__file__).parents[2] / "golden" / "format-1" / "model"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Returns a folder with a model and sixty images of noise in data/, labelled by chance, without masks."""
    shutil.copytree(MODEL, tmp_path / "model")
    (tmp_path / "data").mkdir()
    labels = next(head.labels for head in store.load_model(MODEL)[0].heads if head.name == "digit")
    rng = np.random.default_rng(0)
    lines = ["file_name,digit,slant,ink"]
    for index in range(60):
        Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).save(tmp_path / "data" / f"{index}.png")
        lines.append(f"{index}.png,{rng.choice(labels)},{rng.normal():.3f},")
    (tmp_path / "data" / "metadata.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_the_report_has_each_coverage_once_and_scores_of_classes(root: Path, called: Callable[..., Any]) -> None:
    done = called("evaluate", "model", "--data", "data", "--resamples", "50", cwd=root)
    assert done.code == 0, done.err
    assert max(map(len, done.out.splitlines())) <= 80
    assert "60 examples of the folder, 32 draws" in done.out  # of a folder that the model was not trained on
    assert "note: no example has a target of ink" in done.out
    report = json.loads((root / "model" / "evaluation.json").read_text())
    digit, slant = report["heads"]
    for head in (digit, slant):
        rows = [(row["method"], row["wanted"]) for row in head["coverage"]]
        assert len(rows) == len(set(rows)) >= 2
    assert not any("coverage" in name or "size" in name for name in [*digit["scores"], *slant["scores"]])
    assert digit["scores"]["ECE"][1:] == [None, None]
    for name, (value, low, high) in [*digit["scores"].items(), *slant["scores"].items()]:
        assert name == "ECE" or low <= value <= high, name
    assert np.sum(digit["confusion"]) == 60
    matrix = np.array(digit["confusion"])
    for k, score in enumerate(digit["classes"]):
        assert score["count"] == matrix[k].sum()
        if score["count"]:
            assert score["recall"] == pytest.approx(matrix[k, k] / matrix[k].sum())
    page = (root / "model" / "evaluation.html").read_text()
    assert "<h3>Coverage</h3>" in page
    assert "<h3>Classes</h3>" in page
    # Of noise the model knows nothing: a higher temperature, which calibration fits, changes the likelihood.
    plain = called(
        "evaluate", "model", "--data", "data", "--resamples", "50", "--no-temperature", "--out", "plain", cwd=root
    )
    assert plain.code == 0, plain.err
    assert "note: without the temperatures and scales of the model" in plain.out
    uncalibrated = json.loads((root / "plain.json").read_text())["heads"][0]
    assert uncalibrated["scores"]["NLL"] != digit["scores"]["NLL"]
    assert uncalibrated["coverage"] == []
    assert uncalibrated["scores"]["accuracy"] == digit["scores"]["accuracy"]


def test_nothing_to_score_and_no_place_to_write_are_refused(root: Path, called: Callable[..., Any]) -> None:
    table = root / "data" / "metadata.csv"
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([header, *(row.split(",")[0] + ",,," for row in rows)]))
    refused = called("evaluate", "model", "--data", "data", cwd=root)
    assert refused.code == 2
    assert refused.err == "probrt: data: no example has a target of digit, slant, ink: there is nothing to score\n"
    assert not (root / "model" / "evaluation.json").exists()
    table.unlink()
    refused = called("evaluate", "model", "--data", "data", cwd=root)
    assert (refused.code, "data: no metadata.csv" in refused.err) == (2, True)
    refused = called("evaluate", "model", "--out", "model/card.md/report", cwd=root)
    assert refused.code == 3
    assert refused.err == "probrt: --out model/card.md: cannot be written (File exists)\n"


CONFIG = """
name = "t"
[data]
folder = "data"
features = ["x", "y"]
[input]
shape = [2]
colour = "none"
resize = "none"
[backbone]
name = "dense"
widths = [4]
[weights]
bayesian = "none"
[[heads]]
name = "kind"
likelihood = "categorical"
labels = ["a", "b"]
[fit]
epochs = 1
"""


def test_a_model_without_random_weights_has_no_epistemic_figures(root: Path, called: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    rows = [f"{x:.3f},{y:.3f},{'ab'[int(x > 0)]}" for x, y in rng.normal(size=(100, 2))]
    (root / "data" / "metadata.csv").write_text("\n".join(["x,y,kind", *rows]))
    (root / "config.toml").write_text(CONFIG)
    trained = called("train", "config.toml", "--out", "plain", cwd=root)
    assert trained.code == 0, trained.err
    (root / "others").mkdir()
    for index in range(5):
        np.save(root / "others" / f"{index}.npy", rng.normal(size=2).astype(np.float32) + 5)
    done = called("evaluate", "plain", "--ood", "others", "--resamples", "50", cwd=root)
    assert done.code == 0, done.err
    report = json.loads((root / "plain" / "evaluation.json").read_text())
    (head,), (strangers,) = report["heads"], report["strangers"]
    assert (strangers["name"], strangers["images"]) == ("others", 5)
    assert [row["measure"] for row in strangers["separations"] if row["measure"] != "novelty"] == ["kind.total"]
    assert not any("epistemic" in name or "aleatoric" in name for name in head["scores"])
    assert "epistemic" not in done.out


def simulate(count: int, classes: int, power: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns predicted probabilities, the true ones raised to a power, and classes drawn from the true ones."""
    true = rng.dirichlet(np.full(classes, 0.3), count)
    predicted = true**power / (true**power).sum(axis=1, keepdims=True)
    return predicted, (rng.uniform(size=(count, 1)) > true.cumsum(axis=1)).sum(axis=1).clip(0, classes - 1)


def compare_top(probabilities: np.ndarray, target: np.ndarray) -> CalibrationError:
    right = probabilities.argmax(axis=1) == target
    return compare_confidence(probabilities.max(axis=1)[:, None], right[:, None], np.ones((len(target), 1), bool))


@pytest.mark.parametrize("compare", [compare_top, compare_classes])
@pytest.mark.parametrize("power", [1.0, 1.5, 2.5])
def test_the_interval_of_a_calibration_error_holds_the_truth(
    compare: Callable[[np.ndarray, np.ndarray], CalibrationError], power: float
) -> None:
    """40 samples of 300 examples of 9 classes; the truth is the estimate from 100,000.

    The intervals are made for 95 %, and 33 of 40 is three binomial standard errors (3.4 %) below that. The percentile
    interval of the plain error held the truth of a calibrated model, power 1, in none of 60 samples.
    """
    rng = np.random.default_rng(0)
    truth, _, _ = compare(*simulate(100_000, 9, power, rng)).estimate(0, 1)
    held = 0
    for seed in range(40):
        value, low, high = compare(*simulate(300, 9, power, rng)).estimate(seed, 80)
        assert low <= value <= high
        held += low - 0.002 <= truth <= high + 0.002  # the truth's own noise
    assert held >= 33
