"""`probrt evaluate --ood`: strangers by name, told by novelty and by each uncertainty."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from probrt.trainer import store
from probrt.trainer.evaluate.answers import NoveltyValues
from probrt.trainer.evaluate.outliers import score_strangers

pytestmark = pytest.mark.slow

MODEL = Path(__file__).parents[2] / "golden" / "format-1" / "model"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden model, a labelled folder of calm images, calm images of the same kind, and noise."""
    folder = tmp_path_factory.mktemp("strangers")
    shutil.copytree(MODEL, folder / "model")
    rng = np.random.default_rng(0)
    label = store.load_model(folder / "model")[0].heads[0].labels[0]
    lines = ["file_name,digit,slant,ink"]
    for name, count in (("calm", 110), ("data", 60), ("noise", 20), ("same", 60)):
        (folder / name).mkdir()
        for index in range(count):
            pixels = rng.integers(0, 256, (16, 16))
            calm = rng.integers(60, 120) + pixels // 5
            Image.fromarray((pixels if name == "noise" else calm).astype(np.uint8)).save(folder / name / f"{index}.png")
    lines += [f"{index}.png,{label},{rng.normal():.3f}," for index in range(60)]
    (folder / "data" / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_strangers_are_told_by_novelty(root: Path, called: Callable[..., Any]) -> None:
    assert called("calibrate", "model", "calm", "--unlabelled", cwd=root).code == 0
    words = ["evaluate", "model", "--data", "data", "--samples", "4", "--resamples", "20", "--out", "report.json"]
    done = called(*words, "--ood", "noise", "--ood", "same=same", cwd=root)
    assert done.code == 0, done.err
    report = json.loads((root / "report.json").read_text())
    noise, same = report["strangers"]
    assert [(part["name"], part["images"]) for part in (noise, same)] == [("noise", 20), ("same", 60)]
    by_measure = {row["measure"]: row for row in noise["separations"]}
    assert set(by_measure) == {"novelty"} | {
        f"{head}.{quantity}" for head in ("digit", "slant", "ink") for quantity in ("total", "aleatoric", "epistemic")
    }
    assert by_measure["novelty"]["auroc"][0] == 1.0
    assert by_measure["novelty"]["fpr95"][0] == 0.0
    # Of the same kind: the standard deviation of an AUROC of 60 against 60 is 0.053 by chance; four of that.
    assert next(row for row in same["separations"] if row["measure"] == "novelty")["auroc"][0] == pytest.approx(
        0.5, abs=4 * 0.053
    )
    # 55 ranked images: no p-value is below 1/56, so that is the level; noise is more novel than all of them.
    assert report["level"] == pytest.approx(1 / 56)
    assert noise["unknown"] == 1.0
    # Of a level a, at most a share a of 60 images, within three binomial errors of these and of the 55.
    assert report["unknown"] <= 1 / 56 + 3 * math.sqrt(1 / 56 * (1 / 60 + 1 / 55))
    page = (root / "report.html").read_text()
    assert "Strangers: noise" in page


def test_names_and_folders_are_checked(root: Path, called: Callable[..., Any]) -> None:
    for words, message in (
        (["--ood", "nowhere"], "nowhere: no such folder"),
        (["--ood", "noise", "--ood", "noise"], "needs a name of its own"),
        (["--ood", "=noise"], "needs a name of its own"),
    ):
        done = called("evaluate", "model", "--data", "data", "--out", "no.json", *words, cwd=root)
        assert (done.code, message in done.err, done.err.count("\n")) == (2, True, 1), done.err


def test_scores_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    inside, outside = {"novelty": rng.normal(size=80)}, {"novelty": rng.normal(1, 1, size=50)}
    novelty = NoveltyValues(outside["novelty"], np.linspace(0, 0.1, 50))
    strangers = score_strangers("a", inside, outside, novelty, 0.01, seed=0, resamples=10)
    (row,) = strangers.separations
    values, kinds = np.concatenate([inside["novelty"], outside["novelty"]]), np.repeat([0, 1], [80, 50])
    assert row.auroc[0] == pytest.approx(roc_auc_score(kinds, values))
    assert row.aupr[0] == pytest.approx(average_precision_score(kinds, values))
    threshold = np.quantile(outside["novelty"], 0.05)
    assert row.fpr95[0] == pytest.approx((inside["novelty"] >= threshold).mean(), abs=1 / 80)
    assert strangers.unknown == pytest.approx((novelty.p_value <= 0.01).mean())
