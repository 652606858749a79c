"""`probrt drift`: unchanged data pass as often as the level says, shifted data are found, and bad input is a line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from probrt.runtime.bundle import manifest as m
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.monitor.drift import compare_with_rows
from probrt.runtime.monitor.row_values import collect_values


def make_rows(rng: np.random.Generator, count: int, shift: float = 0.0, strangers: float = 0.0) -> list[dict[str, Any]]:
    """Rows as a model of two heads gives them: uncertainties that hang together, three classes, some errors."""
    rows = []
    for index in range(count):
        row: dict[str, Any] = {"file": f"{index}.png", "sha256": "0" * 64, "error": None, "bundle": "m/1", "draws": 8}
        if rng.random() < 0.02:
            rows.append(row | {"status": "error", "heads": None})
            continue
        hard = rng.normal() + shift
        p = rng.dirichlet([1, 1, 1]) if hard > 0.5 else np.array([0.9, 0.06, 0.04])
        label = "abc"[int(rng.choice(3, p=p))]
        spread = float(np.exp(0.5 * hard + rng.normal() * 0.2))
        new = rng.random() < strangers
        p_value = 0.002 if new else round(rng.random(), 3)
        shape = {"mean": p.tolist(), "total": spread, "aleatoric": spread * 0.8, "epistemic": spread * 0.2}
        slant = {"mean": [rng.normal(), rng.normal()], "total": [spread, 1.0]}
        rows.append(
            row
            | {
                "status": "ok",
                "novelty": {"score": 5.0 if new else hard, "p_value": p_value, "unknown": p_value < 0.01},
            }
            | {"heads": {"shape": shape | {"label": label}, "slant": slant}}
        )
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.slow
def test_data_of_one_source_raise_false_alarms_at_most_at_the_level() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(3)
    runs, level, alarms = 200, 0.1, 0
    for _ in range(runs):
        sides = [collect_values(make_rows(rng, count)) for count in (80, 60)]
        comparisons = compare_with_rows(*sides)
        assert len(comparisons) == 10
        alarms += min(comparison.corrected for comparison in comparisons) <= level
    assert alarms <= stats.binom.isf(0.001, runs, level)


@pytest.mark.parametrize(
    ("change", "found"),
    [({"shift": 0.8}, "shape.total"), ({"strangers": 0.15}, "novelty.unknown")],
    ids=["harder", "strangers"],
)
def test_shifted_data_are_found_and_named(
    tmp_path: Path, called: Callable[..., Any], change: dict[str, float], found: str
) -> None:
    rng = np.random.default_rng(4)
    usual = write(tmp_path / "usual.jsonl", make_rows(rng, 300))
    same = write(tmp_path / "same.jsonl", make_rows(rng, 300))
    new = write(tmp_path / "new.jsonl", make_rows(rng, 300, **change))
    done = called("drift", usual, same, cwd=tmp_path)
    assert (done.code, done.out.splitlines()[-1]) == (0, "no drift at level 0.01 (10 tests)"), done.out
    done = called("drift", usual, new, "--out", "drift.json", "--plot", "drift.png", cwd=tmp_path)
    assert done.code == 1, done.out
    assert found in done.out.splitlines()[-1]
    assert max(map(len, done.out.splitlines()[:-1])) <= 80
    content = json.loads((tmp_path / "drift.json").read_text())
    assert content["drift"] is True
    assert found in [test["name"] for test in content["tests"] if test["corrected_p_value"] <= 0.01]
    with Image.open(tmp_path / "drift.png") as picture:
        assert picture.size[0] > 500
    done = called("drift", usual, new, "--out", "drift.json", cwd=tmp_path)
    assert (done.code, "drift.json exists" in done.err) == (2, True)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_rows_of_every_format_compare_alike(
    bundle: Bundle, pictures: Path, tmp_path: Path, called: Callable[..., Any], suffix: str
) -> None:
    words = ["predict", pictures, "--bundle", bundle.path, "--engine", "litert", "--maps", "none", "--quiet"]
    for name in ("rows.jsonl", f"rows.{suffix}"):
        assert called(*words, "--out", name, cwd=tmp_path).code == 0
    outputs = [called("drift", "rows.jsonl", name, cwd=tmp_path) for name in ("rows.jsonl", f"rows.{suffix}")]
    assert [done.code for done in outputs] == [0, 0]
    assert outputs[0].out == outputs[1].out
    assert "shape.label" in outputs[0].out


def test_a_bundle_stands_for_its_calibration_images(
    bundle: Bundle, tmp_path: Path, called: Callable[..., Any], rewrite: Callable[..., Bundle]
) -> None:
    folder = tmp_path / "m" / "1"
    shutil.copytree(bundle.path, folder)
    rng = np.random.default_rng(5)
    rows = [row | {"bundle": "m/1"} for row in make_rows(rng, 200)]
    write(tmp_path / "same.jsonl", rows)
    write(tmp_path / "new.jsonl", [row | {"bundle": "m/1"} for row in make_rows(rng, 200, strangers=0.4)])
    model = m.ModelRecord(name="m", version=1)
    rewrite(folder, model=model)
    done = called("drift", folder, "same.jsonl", cwd=tmp_path)
    assert (done.code, "m/1: holds no novelty to compare with" in done.err) == (2, True)
    rewrite(folder, model=model, novelty=m.NoveltyRecord(images=499, fitted=500, method="distance", stages=["a"]))
    assert called("drift", folder, "same.jsonl", cwd=tmp_path).code == 0
    done = called("drift", folder, "new.jsonl", cwd=tmp_path)
    assert (done.code, done.out.splitlines()[-1]) == (1, "drift at level 0.01 in novelty.p_value")
    write(tmp_path / "other.jsonl", [row | {"bundle": "m/2"} for row in rows])
    done = called("drift", folder, "other.jsonl", cwd=tmp_path)
    assert (done.code, "rows of m/2, not of m/1" in done.err) == (2, True)


def test_what_cannot_be_compared_is_one_line(tmp_path: Path, called: Callable[..., Any]) -> None:
    rng = np.random.default_rng(6)
    write(tmp_path / "a.jsonl", make_rows(rng, 30))
    write(tmp_path / "b.jsonl", [row | {"bundle": "m/2"} for row in make_rows(rng, 30)])
    write(tmp_path / "errors.jsonl", [row | {"status": "error", "heads": None} for row in make_rows(rng, 5)])
    write(tmp_path / "empty.jsonl", [])
    (tmp_path / "torn.jsonl").write_text('{"file": "a.png", "status": "ok", "heads": {"s": {"mean"')
    for words, message in (
        (("a.jsonl", "b.jsonl"), "rows of m/1 and of m/2: the model itself has changed"),
        (("a.jsonl", "errors.jsonl"), "NEW: holds no good rows"),
        (("empty.jsonl", "a.jsonl"), "REFERENCE: holds no good rows"),
        (("a.jsonl", "torn.jsonl"), "line 1 is no row"),
        (("a.jsonl", "none.jsonl"), "no such file"),
        (("a.jsonl", "a.jsonl", "--level", "1.5"), "--level 1.5: a share above 0"),
        (("a.jsonl", "a.jsonl", "--plot", "a.gif"), "the name of a .png"),
    ):
        done = called("drift", *words, cwd=tmp_path)
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
        assert message in done.err
