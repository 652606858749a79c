"""Rows of every kind of head without maps go on from their own numbers: nothing is computed a second time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from exported_cases import ExportedCase

from probrt.exporter.export import export
from probrt.exporter.plan import ExportRequest
from probrt.runtime import cli
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.engines.formats import BankFiles
from probrt.runtime.monitor.replay import replay_rows

CHUNK, ALL = 8, 24


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The start of the draws of every call of a file of the bank."""
    starts: list[int] = []
    run = BankFiles.run

    def note(self, graph, images, draws):  # type: ignore[no-untyped-def]
        starts.append(draws.start)
        return run(self, graph, images, draws)

    monkeypatch.setattr(BankFiles, "run", note)
    return starts


@pytest.mark.parametrize("case", ["heads_of_features"], indirect=True)
def test_rows_go_on_from_their_numbers(
    bundle: ExportedCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: list[int]
) -> None:
    model = bundle.bundle.path.parents[2] / "model"
    export(model, tmp_path / "artifacts", ExportRequest(draws=ALL, formats=("tflite",), select=False))
    monkeypatch.chdir(tmp_path)
    Path("features").mkdir()
    rng = np.random.default_rng(8)
    for index in range(30):
        np.save(f"features/{index:02d}.npy", rng.uniform(0.2, 0.8, 6).astype(np.float32))

    def predict(out: str, *words: object) -> list[dict]:
        assert cli.call(["predict", "--engine", "litert", "--quiet", "--out", out, *map(str, words)]) == 0
        return [json.loads(line) for line in Path(out).read_text().splitlines()]

    few = predict("few.jsonl", "features", "--samples", CHUNK)
    once = predict("once.jsonl", "features", "--samples", ALL)
    epistemic = np.median([row["heads"]["digit"]["epistemic"] for row in few])
    middle = predict("middle.jsonl", "features", "--tolerance", f"digit={(epistemic / 2 / (CHUNK - 1)) ** 0.5}")
    assert len({row["draws"] for row in middle} - {ALL}) == 2
    for begun in ("few", "middle"):
        runs.clear()
        rows = predict(f"{begun}-more.jsonl", "--continue", f"{begun}.jsonl", "--tolerance", 1e-9)
        assert 0 not in runs
        assert CHUNK in runs
        for row, all_at_once in zip(rows, once, strict=True):
            same = ("file", "sha256", "status", "draws", "effective_draws", "engine", "precision", "bundle", "novelty")
            assert {name: row[name] for name in same} == {name: all_at_once[name] for name in same}
            for head, values in row["heads"].items():
                for name, value in values.items():
                    expected = all_at_once["heads"][head][name]
                    if name in ("label", "set"):
                        assert value == expected
                    else:  # seven digits of the row, of the largest number that the value was made from
                        scale = np.abs(np.ravel(all_at_once["heads"][head]["mean"])).max()
                        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6 * max(1, scale))
        opened = Bundle.open(tmp_path / "artifacts" / "heads_of_features")
        replay = replay_rows(opened, rows, seed=None, precision="float32", engine="litert")
        assert (replay.rows, replay.differing, replay.faults) == (30, {}, {})
