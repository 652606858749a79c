"""Every example: its data can be downloaded and its config trains, in full only under stress."""

from __future__ import annotations

import csv
import io
import math
import re
import runpy
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console

from probrt.runtime.calibration.unknown import usual_level
from probrt.trainer import data, store
from probrt.trainer.build import build_model
from probrt.trainer.config.config import load_config
from probrt.trainer.evaluate.answers import compute_novelty
from probrt.trainer.evaluate.outliers import share_unknown
from probrt.trainer.fit.loop import FitRun, fit_model
from probrt.trainer.train import train_model

# `make demo` runs the digits example in full, and other tests run parts of it.
EXAMPLES = [
    (path.parent.name, path.name)
    for path in sorted((Path(__file__).parent.parent / "examples").glob("*/*.toml"))
    if path.parent.name != "digits"
]
# Their tiles and slabs for validation are fewer than the 50 that novelty needs.
WITHOUT_NOVELTY = {"brain", "nuclei"}
every_example = pytest.mark.parametrize(("name", "config"), EXAMPLES, ids=lambda value: value)


def prepare_example(root: Path, name: str, folder: Path, *arguments: object) -> Path:
    """Copies an example and prepares its data in the copy."""
    copy = folder / name
    shutil.copytree(root / "examples" / name, copy, ignore=shutil.ignore_patterns("data", "__pycache__"))
    main = runpy.run_path(str(root / "examples" / name / "prepare.py"))["main"]
    main(copy / "data", *arguments)
    return copy


@pytest.mark.slow
@every_example
def test_trains_on_a_few_rows(root: Path, tmp_path: Path, name: str, config: str) -> None:
    """After one epoch on the first rows of each split every head has a finite score."""
    arguments = {"objects": [60]}.get(name, [])
    path = prepare_example(root, name, tmp_path, *arguments) / config
    table = path.parent / "data" / "metadata.csv"
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    row_counts = {"train": 8, "validation": 4, "test": 1}
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        for row in rows:
            row_counts[row["split"]] -= 1
            if row_counts[row["split"]] >= 0:
                writer.writerow(row)
    settings = load_config(path)
    read = data.read_dataset(settings, path.parent)
    train_rows, validation = read.splits["train"], read.splits["validation"]
    heads = data.standardise_heads(settings.heads, train_rows)
    backbone = settings.backbone.resolve_paths(path.parent)
    model = build_model(settings.name, settings.input, heads, backbone=backbone, weights=settings.weights)
    fit_settings = msgspec.structs.replace(settings.fit, epochs=1, batch=4)
    (epoch,) = fit_model(model, train_rows, validation, settings=fit_settings, run=FitRun(settings.seed, settings.data))
    assert np.isfinite([epoch.loss, *epoch.metrics.values()]).all()
    assert set(epoch.metrics) == {head.name for head in heads}


@pytest.mark.stress
@pytest.mark.walk
@every_example
def test_reaches_the_score_of_its_config(root: Path, tmp_path: Path, name: str, config: str) -> None:
    """The tolerance is 0.03, because another processor sums in another order."""
    path = prepare_example(root, name, tmp_path) / config
    stated = re.search(r"(?m)^# .*on the test split: (.*)\.$", path.read_text())
    assert stated is not None, "the config states no score"
    train_model(path, tmp_path / "model", Console(file=io.StringIO()))
    model, stored = store.load_model(tmp_path / "model")
    metrics = stored.provenance["metrics"]["test"]
    for head, score in re.findall(r"(\w+) [\w ]+? (\d\.\d+)", stated[1]):
        assert metrics[head] >= float(score) - 0.03, (head, metrics[head])
    novelty = compute_novelty(model, data.read_dataset(load_config(path), path.parent).splits["test"])
    if novelty is None or model.novelty is None:
        assert name in WITHOUT_NOVELTY, stored.provenance["novelty"]
        return
    # At most a share `level` of images like the calibration images is unknown, within three binomial errors of both.
    level = usual_level(calibrated := len(model.novelty.scores))
    error = math.sqrt(level * (1 - level) * (1 / calibrated + 1 / len(novelty.p_value)))
    assert share_unknown(novelty, level) <= level + 3 * error
