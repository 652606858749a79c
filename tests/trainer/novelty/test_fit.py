"""Novelty of pooled features: valid p-values, strangers found, and images that would break a careless formula."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from probrt.trainer.novelty.archive import NoveltyEntry, list_sizes, make_novelty, to_arrays
from probrt.trainer.novelty.fit import (
    MAX_CALIBRATION,
    NoNovelty,
    compute_scores,
    fit_distance,
    fit_novelty,
    fit_spreads,
    measure,
)
from probrt.trainer.novelty.score import Novelty
from probrt.trainer.novelty.stages import StageRef

REFS = (StageRef("first"), StageRef("second"))


def make_features(rng: np.random.Generator, count: int, wide: int = 12) -> list[np.ndarray]:
    """Two stages of correlated features in three classes; one feature never varies."""
    mixing = np.random.default_rng(0).normal(size=(wide, wide))
    centres = np.random.default_rng(1).normal(size=(3, wide)) * 4
    points = (rng.normal(size=(count, wide)) + centres[rng.integers(3, size=count)]) @ mixing
    points[:, 3] = 2.0
    return [points.astype(np.float32), np.maximum(points[:, :5], 0).astype(np.float32)]


def fit(count: int = 300, images: int = 100, seed: int = 2, **settings: int) -> Novelty:
    rng = np.random.default_rng(seed)
    return fit_novelty(REFS, make_features(rng, count, **settings), make_features(rng, images, **settings), seed=0)


def answer(novelty: Novelty, features: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    score = novelty.score([tf.constant(stage, tf.float32) for stage in features])
    return score.numpy(), novelty.p_value(score).numpy()


@pytest.mark.slow
def test_at_most_a_share_of_fresh_images_is_unknown() -> None:
    """At level a, of many calibrations and fresh images of the same kind: within binomial error of a, never above."""
    levels = np.array([0.02, 0.05, 0.1, 0.3, 0.5])
    shares = []
    for seed in range(30):
        _, p_values = answer(fit(images=99, seed=seed), make_features(np.random.default_rng(1000 + seed), 400))
        shares.append((p_values[:, None] <= levels).mean(axis=0))
    # A calibration moves all of its 400 images together: the error is that of 30 calibrations of 99 images.
    error = np.sqrt(levels * (1 - levels) * (1 / 99 + 1 / 400) / len(shares))
    assert (np.mean(shares, axis=0) <= levels + 3 * error).all()
    assert (np.mean(shares, axis=0) >= levels - 0.01 - 3 * error).all()


def test_a_p_value_is_never_below_the_exact_one_and_does_not_jump() -> None:
    novelty = fit()
    scores = np.concatenate([novelty.scores, novelty.scores + 1e-5, novelty.scores - 1e-5, [-50, 50, np.inf]])
    p_values = novelty.p_value(tf.constant(scores, tf.float32)).numpy()
    exact = (1 + (novelty.scores[None] >= scores[:, None].astype(np.float32)).sum(axis=1)) / (len(novelty.scores) + 1)
    assert (p_values >= exact - 1e-6).all()
    assert (p_values <= exact + 3 / (len(novelty.scores) + 1)).all()
    fine = np.linspace(-3, 3, 200_001).astype(np.float32)
    steps = np.abs(np.diff(novelty.p_value(tf.constant(fine)).numpy()))
    assert steps.max() < 0.1 / (len(novelty.scores) + 1) * 3


def test_strangers_get_the_smallest_p_value() -> None:
    novelty = fit()
    rng = np.random.default_rng(9)
    shuffled = [rng.permuted(stage, axis=1) for stage in make_features(rng, 50)]
    _, p_values = answer(novelty, shuffled)
    assert np.median(p_values) == pytest.approx(1 / 101, rel=1e-3)


@pytest.mark.parametrize("size", [1e6, 1e20, 3e38])
def test_no_finite_features_give_nan(size: float) -> None:
    novelty = fit()
    features = [np.full((2, 12), size, np.float32), np.full((2, 5), -size, np.float32)]
    score, p_values = answer(novelty, features)
    assert np.isfinite(score).all()
    np.testing.assert_allclose(p_values, 1 / 101, rtol=1e-5)


def test_a_feature_that_never_varied_makes_an_image_novel_when_it_does() -> None:
    novelty, features = fit(), make_features(np.random.default_rng(5), 50)
    known = answer(novelty, features)[0]
    features[0][:, 3] = 2.5
    assert (answer(novelty, features)[0] > known).all()
    features[0][:, 3] = 20.0
    assert np.median(answer(novelty, features)[1]) < 0.02


def test_the_graph_measures_as_the_formula() -> None:
    """Against distances of the definition, in float64: the inverse of the correlations plus the identity."""
    features = make_features(np.random.default_rng(3), 120)[0].astype(np.float64)
    distance = fit_distance(features, seed=0)
    fresh = make_features(np.random.default_rng(4), 20)[0].astype(np.float64)
    units = (features - features.mean(0)) * distance.inverse_deviation
    inverse = np.linalg.inv(units.T @ units / len(units) + np.eye(12))
    prototypes = np.linalg.lstsq(distance.directions.T.astype(np.float64), distance.prototypes.T, rcond=None)[0].T
    gaps = ((fresh - features.mean(0)) * distance.inverse_deviation)[:, None] - prototypes[None]
    expected = np.einsum("npf,fg,npg->np", gaps, inverse, gaps).min(axis=1) / 12 + 1e-4
    np.testing.assert_allclose(distance.measure(tf.constant(fresh, tf.float32)).numpy(), expected, rtol=1e-4)
    np.testing.assert_allclose(measure(distance, fresh), expected, rtol=1e-4)


def test_the_least_surprise_is_the_densest_normal_of_a_prototype() -> None:
    """Against the densities of TFP, per feature: half of the constant log(2 pi / features) apart."""
    features = make_features(np.random.default_rng(3), 300)[0]
    distance = fit_spreads(features, seed=0)
    assert distance.directions.shape[1] < 12  # one feature never varies
    fresh = make_features(np.random.default_rng(4), 20)[0].astype(np.float64)
    units = (fresh - distance.centre) * distance.inverse_deviation
    whitened = units @ distance.directions
    outside = np.square(units).sum(axis=1) - (np.square(whitened) * distance.spreads).sum(axis=1)
    outside = np.sqrt(distance.residual * np.maximum(outside, 0))
    densities = []
    for prototype, radius in zip(distance.prototypes.astype(np.float64), distance.radii, strict=True):
        gaps = np.zeros((len(fresh), 12))  # the whitened coordinates, and one for all that lies outside
        gaps[:, : len(prototype)] = whitened - prototype
        gaps[:, -1] = outside
        normal = tfp.distributions.Normal(np.float64(0), np.sqrt(np.float64(radius) / 12))
        densities.append(tf.reduce_sum(normal.log_prob(gaps), axis=1).numpy() / 12)
    expected = -np.max(densities, axis=0) - 0.5 * np.log(2 * np.pi / 12)
    np.testing.assert_allclose(distance.score(tf.constant(fresh, tf.float32)).numpy(), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(compute_scores(distance, fresh), expected, rtol=1e-6)


def test_a_radius_is_the_spread_of_the_images_next_to_its_prototype() -> None:
    """Two clouds, one three times as wide: its images are as familiar as the others'."""
    rng = np.random.default_rng(0)
    clouds = np.concatenate([rng.normal(size=(3000, 6)) * 0.1, rng.normal(size=(3000, 6)) * 0.3 + 5]).astype(np.float32)
    distance = fit_spreads(clouds, seed=0)
    assert distance.radii.max() > 4 * distance.radii.min()
    narrow, wide = compute_scores(distance, clouds[:3000]), compute_scores(distance, clouds[3000:])
    assert wide.mean() - narrow.mean() == pytest.approx(np.log(3), abs=0.15)  # the densities differ by 3 per feature


@pytest.mark.parametrize(("images", "prototypes"), [(60, 30), (400, 80), (10_001, 400)])
def test_prototypes_grow_with_the_root_of_the_images(images: int, prototypes: int) -> None:
    """Of more than 10,000, k-means takes random batches: its centres lie as close to fresh points, within 2 %."""
    rng = np.random.default_rng(0)
    features, fresh = rng.normal(size=(images, 4)), rng.normal(size=(2000, 4)).astype(np.float32)
    distance = fit_spreads(features.astype(np.float32), seed=0)
    assert len(distance.prototypes) == prototypes
    distance_at_once = fit_spreads(features[:10_000].astype(np.float32), seed=0)
    assert measure(distance, fresh).mean() == pytest.approx(measure(distance_at_once, fresh).mean(), rel=0.02)


def test_a_score_above_one_grows_as_a_logarithm() -> None:
    novelty = fit()
    far = [
        answer(novelty, [np.full((1, 12), size, np.float32), np.zeros((1, 5), np.float32)])[0] for size in (2e3, 4e3)
    ]
    assert far[1] - far[0] == pytest.approx(2 * np.log(2), abs=0.03)  # of the squared distance; centres are near 20


def test_novelty_of_a_model_of_before_is_stored_and_scored_as_it_was() -> None:
    """Distances to prototypes without radii: their logarithm, and no other."""
    features = make_features(np.random.default_rng(3), 200)
    before = Novelty(
        stages=REFS,
        distances=tuple(fit_distance(stage, seed=0) for stage in features),
        weights=np.array([1.0, 2.0], np.float32),
        offset=0.5,
        scores=np.linspace(-2, 2, 60, dtype=np.float32),
        width=1e-3,
        fitted=200,
    )
    fresh = make_features(np.random.default_rng(4), 20)
    logs = [np.log(measure(distance, stage)) for distance, stage in zip(before.distances, fresh, strict=True)]
    np.testing.assert_allclose(answer(before, fresh)[0], logs[0] + 2 * logs[1] - 0.5, rtol=1e-3, atol=1e-3)
    for novelty in (before, fit()):
        entry = NoveltyEntry.of(novelty)
        stored = {name: np.asarray(array) for name, array in to_arrays(novelty).items()}
        assert all(stored[name].size <= most for name, most in list_sizes(entry).items())
        np.testing.assert_array_equal(answer(make_novelty(entry, stored), fresh)[0], answer(novelty, fresh)[0])
    stored["0.radii"] = -stored["0.radii"]
    with pytest.raises(ValueError, match="the radii are not one above 0"):
        make_novelty(entry, stored)
    nothing_before = NoveltyEntry(method=entry.method, stages=[StageRef("first", joined=True)], fitted=200)
    with pytest.raises(ValueError, match="stage first joins a set, but none is before it"):
        make_novelty(nothing_before, stored)


def test_sets_of_different_numbers_of_prototypes_score_as_each_alone() -> None:
    """The sum for all sets at once, against one set after the other in float64."""
    novelty = fit()
    first, second = novelty.distances
    few = dataclasses.replace(second, prototypes=second.prototypes[:7], radii=second.radii[:7])
    fresh = make_features(np.random.default_rng(4), 20)
    both = dataclasses.replace(novelty, distances=(first, few))
    pairs = zip(both.distances, fresh, strict=True)
    sums = np.stack([compute_scores(*pair) for pair in pairs], axis=1) @ novelty.weights - novelty.offset
    expected = np.where(sums > 1, 1 + np.log(np.maximum(sums, 1)), sums)
    np.testing.assert_allclose(answer(both, fresh)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_many_features_keep_the_directions_of_the_largest_variance() -> None:
    rng = np.random.default_rng(6)
    low_rank = rng.normal(size=(400, 20)) @ rng.normal(size=(20, 600))
    distance = fit_distance((low_rank + 0.1 * rng.normal(size=low_rank.shape)).astype(np.float32), seed=0)
    assert distance.directions.shape == (600, 256)
    assert 0.9 < distance.residual <= 1.0
    outside = rng.normal(size=(5, 600)).astype(np.float32) * np.float32(low_rank.std())
    inside = low_rank[:5].astype(np.float32)
    assert (
        distance.measure(tf.constant(outside)).numpy().min() > 3 * distance.measure(tf.constant(inside)).numpy().max()
    )
    np.testing.assert_allclose(distance.measure(tf.constant(outside)).numpy(), measure(distance, outside), rtol=1e-3)


def test_what_gives_no_novelty() -> None:
    rng = np.random.default_rng(0)
    good = make_features(rng, 60)
    with pytest.raises(NoNovelty, match="49 calibration images, at least 50 are needed"):
        fit_novelty(REFS, good, [stage[:49] for stage in good], seed=0)
    with pytest.raises(NoNovelty, match="49 training images, at least 50 are needed"):
        fit_novelty(REFS, [stage[:49] for stage in good], good, seed=0)
    alike = [np.ones_like(stage) for stage in good]
    with pytest.raises(NoNovelty, match="do not vary"):
        fit_novelty(REFS, alike, alike, seed=0)
    bad = [good[0].copy(), good[1]]
    bad[0][7, 2] = np.nan
    with pytest.raises(NoNovelty, match="features of some training images are not finite"):
        fit_novelty(REFS, bad, good, seed=0)
    with pytest.raises(NoNovelty, match="a stage has 4097 features"):
        fit_novelty(REFS[:1], [rng.normal(size=(60, 4097))], [rng.normal(size=(60, 4097))], seed=0)


def test_a_stage_without_variance_among_others() -> None:
    rng = np.random.default_rng(0)
    training, calibration = make_features(rng, 80), make_features(rng, 60)
    for features in (training, calibration):
        features[1][:] = 3.0
    novelty = fit_novelty(REFS, training, calibration, seed=0)
    fresh = make_features(rng, 40)
    fresh[1][:] = 3.0
    score, p_values = answer(novelty, fresh)
    assert np.isfinite(score).all()
    assert np.median(p_values) > 0.2
    fresh[1][:] = 3.0 + 1e-6  # rounding
    assert np.abs(answer(novelty, fresh)[0] - score).max() < 0.05
    fresh[1][:] = 4.0
    np.testing.assert_allclose(answer(novelty, fresh)[1], 1 / 61, rtol=1e-3)


def test_the_p_value_of_few_and_of_many_images() -> None:
    for images in (50, MAX_CALIBRATION):
        novelty = fit(count=60, images=images)
        far = answer(novelty, [np.full((1, 12), 1e3, np.float32), np.full((1, 5), 1e3, np.float32)])[1]
        np.testing.assert_allclose(far, 1 / (images + 1), rtol=1e-5)
