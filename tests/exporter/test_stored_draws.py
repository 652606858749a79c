"""The draws that a SavedModel stores: each is the draw that it stands for, in an ensemble too."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import BY_NAME
from loader import SavedModelSession

from probrt.exporter import stored_draws
from probrt.exporter.ensemble import Ensemble
from probrt.exporter.exportable import Exportable
from probrt.exporter.savedmodel import write_saved_model
from probrt.exporter.stored_draws import StoredDraws, store_draws
from probrt.runtime.bundle.manifest import PosteriorRecord
from probrt.trainer.model import Model, map_draws

INDICES = [5, 0, 3, 8, 2]


def make_member(seed: int) -> Model:
    keras.utils.set_random_seed(seed)
    return BY_NAME["conv2d_random_bias"].make()


@pytest.fixture(scope="module", params=["model", "ensemble"])
def model(request: pytest.FixtureRequest) -> Exportable:
    return make_member(0) if request.param == "model" else Ensemble("both", (make_member(0), make_member(1)))


def make_images(model: Exportable) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (3, *model.input.shape)).astype(np.float32)


def test_each_handler_gives_its_draw(model: Exportable) -> None:
    """The same weights, so the same bits."""
    features = model.shared_features(tf.constant(make_images(model)))
    answers = map_draws(features, StoredDraws(model, 7, INDICES).handlers(), model.moments_from)
    for index, answer in zip(INDICES, answers, strict=True):
        (expected,) = map_draws(features, [model.constant_draw_handler(7, index)], model.moments_from)
        for head in expected:
            np.testing.assert_array_equal(answer[head].mean, expected[head].mean)


def test_a_member_stores_its_own_draws_alone(model: Exportable) -> None:
    elements = sum(int(np.prod(variable.shape)) for variable in StoredDraws(model, 7, INDICES).variables)
    assert elements == len(INDICES) * sum(int(np.prod(weight.shape)) for weight in make_member(0).weights)


@pytest.mark.slow
def test_a_large_bank_is_made_in_the_graph_with_the_same_answers(
    model: Exportable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights from float32 noise in a graph are those computed before to a few units in the last place."""
    posterior = PosteriorRecord(seed=7, order=INDICES, samples=len(INDICES), chunk=8, max_samples=32)
    sizes, answers = [], []
    for limit in (stored_draws.MAX_BYTES, 0):
        monkeypatch.setattr(stored_draws, "MAX_BYTES", limit)
        assert (store_draws(model, 7, INDICES) is None) == (limit == 0)
        folder = tmp_path / str(limit)
        folder.mkdir()
        write_saved_model(model, posterior, folder)
        sizes.append(sum(path.stat().st_size for path in (folder / "variables").iterdir()))
        answers.append(SavedModelSession(folder)("serving_default", {"images": make_images(model)}))
    assert sizes[0] > sizes[1]
    for name, expected in answers[0].items():
        np.testing.assert_allclose(answers[1][name], expected, rtol=1e-5, atol=1e-5, err_msg=name)
