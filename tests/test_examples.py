"""Every example: its data can be had, its config trains; shortened here, to its stated score under stress."""

from __future__ import annotations

import csv
import io
import re
import runpy
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from probrt.trainer import store
from probrt.trainer.train import train

# The digits example is run in full by `make demo`, and in parts by other tests.
EXAMPLES = [
    (path.parent.name, path.name)
    for path in sorted((Path(__file__).parent.parent / "examples").glob("*/*.toml"))
    if path.parent.name != "digits"
]
every_example = pytest.mark.parametrize(("name", "config"), EXAMPLES, ids=lambda value: value)


def prepared(root: Path, name: str, folder: Path, *more: object) -> Path:
    """A copy of an example with its data in place."""
    copy = folder / name
    shutil.copytree(root / "examples" / name, copy, ignore=shutil.ignore_patterns("data", "__pycache__"))
    main = runpy.run_path(str(root / "examples" / name / "prepare.py"))["main"]
    main(copy / "data", *more)
    return copy


def fitted(config: Path, out: Path) -> dict[str, float]:
    """Metrics on the test split of the model that a config gives."""
    train(config, out, Console(file=io.StringIO()))
    return store.load(out)[1].provenance["metrics"]["test"]


@every_example
def test_shortened(root: Path, tmp_path: Path, name: str, config: str) -> None:
    """One epoch on the first rows of each split."""
    few = {"objects": [60]}.get(name, [])
    path = prepared(root, name, tmp_path, *few) / config
    path.write_text(re.sub(r"(?m)^epochs = \d+$", "epochs = 1", path.read_text()))
    table = path.parent / "data" / "metadata.csv"
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    kept = {"train": 16, "validation": 4, "test": 4}
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        for row in rows:
            kept[row["split"]] -= 1
            if kept[row["split"]] >= 0:
                writer.writerow(row)
    metrics = fitted(path, tmp_path / "model")
    heads = re.findall(r'(?m)^\[\[heads\]\]\nname = "(\w+)"', path.read_text())
    assert set(metrics) == set(heads)


@pytest.mark.stress
@every_example
def test_stated_scores(root: Path, tmp_path: Path, name: str, config: str) -> None:
    """The score that the config states, but for 0.03: another processor sums in another order."""
    path = prepared(root, name, tmp_path) / config
    stated = re.search(r"(?m)^# .*on the test split: (.*)\.$", path.read_text())
    assert stated is not None, "the config states no score"
    metrics = fitted(path, tmp_path / "model")
    for head, score in re.findall(r"(\w+) [\w ]+? (\d\.\d+)", stated[1]):
        assert metrics[head] >= float(score) - 0.03, (head, metrics[head])
