"""Novelty of positions: which stages it compares, strange places found, and numbers that a model directory refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import msgspec
import numpy as np
import pytest
import tensorflow as tf
from cases import DIGIT, INK

from probrt.runtime.bundle.manifest import Input
from probrt.trainer import backbones
from probrt.trainer.build import build_model
from probrt.trainer.calibration.novelty import add_novelty, renew_novelty
from probrt.trainer.data.read import Examples
from probrt.trainer.layers.weight_settings import WeightSettings
from probrt.trainer.model import Model
from probrt.trainer.novelty.archive import NoveltyEntry, make_novelty, to_arrays
from probrt.trainer.novelty.fit import NoNovelty
from probrt.trainer.novelty.positions import fit_positions, rank_positions
from probrt.trainer.novelty.stages import StageRef
from probrt.trainer.variational.handlers import MeanHandler, use_handler

# One worker for all: the fixture of the module is made once.
pytestmark = pytest.mark.xdist_group("positions")

REFS = (StageRef("early"), StageRef("late"))
UNET = backbones.UNet(widths=(4, 6, 6), depth=1)


def make_points(seed: int, count: int = 2000) -> list[np.ndarray]:
    """Features of two stages, at places that are of three kinds."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 3, count)
    centres = np.random.default_rng(9).normal(size=(2, 3, 6)) * 5
    return [(centres[stage][kinds] + rng.normal(size=(count, 6))).astype(np.float32) for stage in range(2)]


def make_model(*heads: Any, backbone: Any = UNET, shape: tuple[int | None, ...] = (16, 16, 1)) -> Model:
    input = Input(shape=list(shape), colour="none", resize="none", range=(0.0, 255.0))
    keras.utils.set_random_seed(1)  # some untrained networks of so few channels see no texture
    return build_model("net", input, heads, backbone=backbone, weights=WeightSettings())


def make_examples(seed: int, count: int = 60) -> Examples:
    rng = np.random.default_rng(seed)
    images = rng.integers(60, 180, (count, 1, 1, 1)) + rng.integers(0, 30, (count, 16, 16, 1))
    return Examples(tuple(map(str, range(count))), images.astype(np.float32), {})


def test_calibration_positions_have_mean_0_and_deviation_1_and_strange_ones_more() -> None:
    novelty = fit_positions(REFS, make_points(0), make_points(1), seed=0)
    fresh = [stage.reshape(4, 20, 25, 6) for stage in make_points(2)]
    scores = novelty.score([tf.constant(stage) for stage in fresh]).numpy()
    assert scores.shape == (4, 20, 25)
    assert scores.mean() == pytest.approx(0.0, abs=0.15)
    assert scores.std() == pytest.approx(1.0, abs=0.15)
    for stage in fresh:
        stage[1, 3:6, 7:9] *= -1
    strange = novelty.score([tf.constant(stage) for stage in fresh]).numpy()
    changed = strange != scores
    assert changed[1, 3:6, 7:9].all()
    assert changed.sum() == 6
    assert strange[1, 3:6, 7:9].min() > np.quantile(scores, 0.99)
    nearer = rank_positions(novelty, [stage * 2 for stage in make_points(1)])
    assert nearer.score([tf.constant(stage * 2) for stage in fresh]).numpy()[0].mean() == pytest.approx(0.0, abs=0.2)


def test_every_finite_feature_has_a_finite_score() -> None:
    novelty = fit_positions(REFS, make_points(0), make_points(1), seed=0)
    for value in (0.0, -1e30, 3e38):
        assert np.isfinite(novelty.score([tf.fill([1, 2, 2, 6], value)] * 2)).all()


def test_what_gives_no_novelty_of_positions() -> None:
    good, alike = make_points(0), [np.ones((100, 6), np.float32)] * 2
    with pytest.raises(NoNovelty, match="do not vary"):
        fit_positions(REFS, good, alike, seed=0)
    with pytest.raises(NoNovelty, match="not finite"):
        fit_positions(REFS, good, [np.full((100, 6), np.nan)] * 2, seed=0)


@pytest.mark.parametrize("shape", [(16, 16, 1), (None, None, 1)])
def test_the_stages_are_those_of_the_finest_head(shape: tuple[int | None, ...]) -> None:
    model = add_novelty(make_model(DIGIT, INK, shape=shape), make_examples(0), make_examples(1), seed=0)
    assert [ref.layer.split("_")[0] for ref in model.novelty.map.stages] == ["encoder1", "decoder1"]
    assert model.map_sides == list(shape[:2])
    assert model.novelty.summary.endswith("; maps of positions")
    images = make_examples(2, 4).images
    images[:, 4:9, 4:9] = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 1))
    with use_handler(MeanHandler()):
        answer = model.moments_and_novelty(images)[1]
        assert set(model.without_novelty_map().moments_and_novelty(images)[1]) == {"score", "p_value"}
    scores = answer["map"].numpy()
    assert scores[:, 5:8, 5:8].mean() > scores[:, 12:, 12:].mean() + 1
    renewed = renew_novelty(model, make_examples(3), seed=0)
    assert renewed.novelty.map.offset != model.novelty.map.offset
    constant = Examples(make_examples(3).files, np.full((60, 16, 16, 1), 9.0, np.float32), {})
    with pytest.raises(NoNovelty):
        renew_novelty(model, constant, seed=0)


@pytest.mark.parametrize(("heads", "backbone"), [((DIGIT,), UNET), ((DIGIT,), backbones.ConvStack(widths=(4, 6)))])
def test_models_without_heads_per_position_have_none(heads: Any, backbone: Any) -> None:
    model = add_novelty(make_model(*heads, backbone=backbone), make_examples(0), make_examples(1), seed=0)
    assert model.novelty.map is None


@pytest.fixture(scope="module")
def stored() -> tuple[Model, bytes, dict[str, np.ndarray]]:
    model = add_novelty(make_model(INK), make_examples(0), make_examples(1), seed=0)
    return model, msgspec.json.encode(NoveltyEntry.of(model.novelty)), to_arrays(model.novelty)


def test_a_model_directory_keeps_it(stored: Any) -> None:
    model, entry, arrays = stored
    read = make_novelty(msgspec.json.decode(entry, type=NoveltyEntry), arrays)
    assert read.map.stages == model.novelty.map.stages
    for ours, theirs in zip(model.novelty.map.distances, read.map.distances, strict=True):
        np.testing.assert_array_equal(ours.prototypes, theirs.prototypes)
    assert (read.map.offset, read.map.weights.tolist()) == (
        pytest.approx(model.novelty.map.offset),
        model.novelty.map.weights.tolist(),
    )
    older = msgspec.json.decode(entry)
    del older["map"]
    without = make_novelty(msgspec.convert(older, NoveltyEntry), {k: v for k, v in arrays.items() if "map" not in k})
    assert without.map is None


@pytest.mark.parametrize(
    ("name", "bend"),
    [
        ("map.weights", lambda values: values * 0),
        ("map.weights", lambda values: values[:1]),
        ("map.offset", lambda values: values * np.nan),
        ("map.1.centre", lambda values: values[1:]),
        ("map.0.spreads", lambda values: -values),
        ("map.0.prototypes", lambda values: values + np.inf),
        ("map.0.residual", lambda values: values - 1),
    ],
)
def test_bent_numbers_are_refused(stored: Any, name: str, bend: Callable[[Any], Any]) -> None:
    _, entry, arrays = stored
    decoded = msgspec.json.decode(entry, type=NoveltyEntry)
    with pytest.raises(ValueError, match="map"):
        make_novelty(decoded, arrays | {name: bend(arrays[name])})
    with pytest.raises(KeyError):
        make_novelty(decoded, {key: values for key, values in arrays.items() if key != name})


@pytest.mark.parametrize("layer", ["nowhere", "bottom_conv1_relu", "final"])
def test_stages_that_do_not_fit_are_refused(stored: Any, layer: str) -> None:
    model, entry, arrays = stored
    raw = msgspec.json.decode(entry)
    raw["map"][1]["layer"] = layer
    novelty = make_novelty(msgspec.convert(raw, NoveltyEntry), arrays)
    bent = Model(model.name, model.input, model.heads, model.network, novelty=novelty)
    with pytest.raises((KeyError, ValueError)):
        bent.check_stages()
