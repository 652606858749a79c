"""`probrt label` with a bundle that knows novelty: a share of the choice are the most novel images."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import BY_NAME
from exported_cases import load_case
from PIL import Image

from probrt.runtime import read_image
from probrt.runtime.predict.predictor import load_predictor

COUNT, NOISE = 12, (2, 7)


@pytest.mark.parametrize("case", ["digits"])
def test_a_share_is_chosen_by_the_novelty_of_predict(called: Callable[..., Any], case: str, tmp_path: Path) -> None:
    bundle = load_case(BY_NAME[case]).bundle
    rng = np.random.default_rng(4)
    (tmp_path / "pool").mkdir()
    for index in range(COUNT):
        pixels = rng.integers(0, 256, bundle.manifest.input.shape[:2])
        calm = 90 + 6 * index + pixels // 5
        Image.fromarray((pixels if index in NOISE else calm).astype(np.uint8)).save(tmp_path / f"pool/{index:02d}.png")
    words = ["label", "pool", "--bundle", bundle.path, "--head", "digit", "--take", 6, "--draws", 8, "--quiet"]
    call = called(*words, "--novel", 1 / 3, cwd=tmp_path)
    assert call.code == 0, call.err
    with (tmp_path / "to_label.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 6
    by_novelty = sorted(Path(row["file"]).name for row in rows if row["reason"] == "novelty")
    assert by_novelty == [f"{index:02d}.png" for index in NOISE]
    files = [tmp_path / "pool" / Path(row["file"]).name for row in rows]
    images = np.stack([read_image(file.read_bytes(), bundle.manifest.input) for file in files])
    prediction = load_predictor(bundle, engine="tensorflow", variant="mean")(images)
    assert prediction.novelty is not None
    np.testing.assert_allclose(
        [float(row["novelty_p_value"]) for row in rows], prediction.novelty.p_value, atol=1e-4
    )  # the table rounds to seven digits, and a score moves by rounding on another path through the same graph
