"""The code of docs/without_probrt.md combines the files of a bundle as probrt does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probrt.runtime import Bundle, load_predictor

PAGE = (Path(__file__).parents[2] / "docs" / "without_probrt.md").read_text(encoding="utf-8")


@pytest.fixture
def names(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the page's blocks leave behind, run in their order, with images that are not zeros."""
    (tmp_path / "artifacts" / "digits").mkdir(parents=True)
    (tmp_path / "artifacts" / "digits" / "1").symlink_to(bundle.path)
    monkeypatch.chdir(tmp_path)
    values: dict[str, Any] = {}
    zeros = 'np.zeros((2, *manifest["input"]["shape"]), np.float32)'
    random = 'np.random.default_rng(3).uniform(0, 255, (2, *manifest["input"]["shape"])).astype(np.float32)'
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    chunk = bundle.manifest.posterior.chunk if bundle.manifest.posterior else 0
    for block in blocks:
        text = block.replace("(0, 8)", f"(0, {chunk})").replace("[8, 8]", f"[{chunk}, {chunk}]")
        exec(text.replace(zeros, random), values)
    assert zeros in "".join(blocks)
    return values


def test_the_bank_answers_as_probrt(bundle: Bundle, names: dict[str, Any]) -> None:
    expected = load_predictor(bundle, engine="onnxruntime")(names["images"])
    compare(expected, names["answers"])
    for chunk, same in zip(names["chunks"], names["same_chunks"], strict=True):
        for name, values in chunk.items():
            np.testing.assert_allclose(same[name], values, rtol=2e-3, atol=2e-4)


def test_another_seed_answers_as_probrt(bundle: Bundle, names: dict[str, Any]) -> None:
    assert bundle.manifest.posterior is not None
    samples = 2 * bundle.manifest.posterior.chunk
    predict = load_predictor(bundle, engine="onnxruntime", seed=7, samples=samples)
    compare(predict(names["images"]), names["answers_of_seed_7"])


def compare(expected: Any, answers: dict[str, dict[str, np.ndarray]]) -> None:
    for name, answer in answers.items():
        for quantity, values in answer.items():
            np.testing.assert_allclose(values, getattr(expected[name], quantity), rtol=1e-5, atol=1e-6)
