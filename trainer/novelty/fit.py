"""Fits novelty to the pooled features of training images, and its p-value to those of calibration images.

Prototypes with a spread of their own, in a whitened space, won against the alternatives; docs/quality.md has the
tables. They need no labels, so one rule serves models with classes and without.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probrt.trainer.novelty.score import FLOOR, LIMIT, Novelty, StageDistance
from probrt.trainer.novelty.stages import StageRef

# Fewer images than this say too little: neither training nor calibration.
MIN_IMAGES = 50
MAX_CALIBRATION = 1000
MAX_TRAINING = 60_000
# The novelty of an image has so many prototypes as this times the root of the number of training images, but not more
# than MAX_PROTOTYPES; that of positions has POSITION_PROTOTYPES.
_PER_ROOT = 4
MAX_PROTOTYPES = 512
POSITION_PROTOTYPES = 128
# Of more points k-means takes random batches, which measured as well in a seventh of the time; distances of more images
# are computed in parts.
_MOST_AT_ONCE = 10_000
_POINTS_PER_BATCH = 4096
# Directions per stage; a stage of more features keeps those of the largest variance.
MAX_DIRECTIONS = 256
MAX_FEATURES = 4096
# Directions of the novelty of an image explain this part of the variance, and are no more than so many; more of them
# measured no better.
_EXPLAINED = 0.99
_MOST_DIRECTIONS = 96
# A prototype's spread counts as if so many more images of the average spread lay next to it.
_PRIOR_IMAGES = 20
# A feature that hardly varies counts as if it varied by this part of the average, or of the features' size.
_LEAST_DEVIATION = 1e-3
# The steps of the p-value are slopes of this part of the scores' standard deviation, which is 1. Sums of a power of two
# are exact.
_WIDTH = 2.0**-10
# A stage whose log distance, or surprise, varies less than this counts as if it varied so; usual are 0.3 and 0.15.
LEAST_SPREAD = 0.1
_LEAST_SURPRISE = 0.02
# Calibration scores that vary less than this are all alike but for rounding.
LEAST_SCALE = 1e-2

Floats = npt.NDArray[np.float64]


class NoNovelty(Exception):
    """A model gets no novelty; the message says why, as a clause."""


def check_count(images: int, name: str) -> None:
    """Raises NoNovelty for too few images."""
    if images < MIN_IMAGES:
        raise NoNovelty(f"{images} {name} images, at least {MIN_IMAGES} are needed")


def fit_novelty(
    refs: Sequence[StageRef], training: Sequence[npt.NDArray[Any]], calibration: Sequence[npt.NDArray[Any]], seed: int
) -> Novelty:
    """Returns the novelty of a model.

    refs: of the pooled features. training, calibration: these, one [images, features] per set that the refs give. The
    calibration images must have no part in the training; they only rank new images, and set the scale of the score.
    Raises NoNovelty where the images are too few or all alike, or the network gives values that are not finite.

    A stage's weight is 1 over the standard deviation of its surprise. It is measured on a fifth of the training
    images, with distances that the others fit, because the nearest prototype of an image may be the image itself.
    """
    check_features(training, "training")
    widest = max(features.shape[1] for features in training)
    if widest > MAX_FEATURES:
        raise NoNovelty(f"a stage has {widest} features, at most {MAX_FEATURES} are possible")
    is_held = np.random.default_rng(seed).permutation(len(training[0])) % 5 == 0
    deviations = []
    for features in training:
        distance = fit_spreads(features[~is_held], seed)
        deviations.append(max(float(compute_scores(distance, features[is_held]).std()), _LEAST_SURPRISE))
    distances = tuple(fit_spreads(features, seed) for features in training)
    unranked = Novelty(
        stages=tuple(refs),
        distances=distances,
        weights=(1.0 / np.array(deviations)).astype(np.float32),
        offset=0.0,
        scores=np.zeros(0, np.float32),
        width=_WIDTH,
        fitted=len(training[0]),
    )
    return rank_images(unranked, calibration)


def rank_images(novelty: Novelty, calibration: Sequence[npt.NDArray[Any]]) -> Novelty:
    """Returns the novelty with the same distances, whose p-values rank a new image among these.

    calibration: pooled features, one [images, features] per set. Raises NoNovelty where the images are too few or
    all alike, or the network gives values that are not finite.
    """
    check_features(calibration, "calibration")
    pairs = zip(novelty.distances, calibration, strict=True)
    sums = np.stack([compute_scores(*pair) for pair in pairs], axis=1) @ novelty.weights.astype(np.float64)
    scale = float(sums.std())
    if not scale > LEAST_SCALE:
        raise NoNovelty("the features of the calibration images do not vary")
    scores = (sums - sums.mean()) / scale
    if novelty.is_local:
        scores = np.minimum(scores, 1.0) + np.log(np.maximum(scores, 1.0))
    return dataclasses.replace(
        novelty,
        weights=(novelty.weights / scale).astype(np.float32),
        offset=float(sums.mean() / scale),
        scores=np.sort(scores).astype(np.float32),
    )


def check_features(images: Sequence[npt.NDArray[Any]], name: str) -> None:
    """Raises NoNovelty for too few images, or for features that are not finite."""
    check_count(len(images[0]), name)
    if not all(np.isfinite(features).all() for features in images):
        raise NoNovelty(f"the features of some {name} images are not finite")


def fit_spreads(features: npt.NDArray[Any], seed: int) -> StageDistance:
    """Fits `fit_distance` with the directions that explain most, and the radius of each prototype."""
    prototypes = min(MAX_PROTOTYPES, round(_PER_ROOT * len(features) ** 0.5))
    distance = fit_distance(features, seed, prototypes, _EXPLAINED, _MOST_DIRECTIONS)
    images, sums = np.zeros((2, len(distance.prototypes)))
    for squares in _square_distances(distance, features):
        nearest = squares.argmin(axis=1)
        images += np.bincount(nearest, minlength=len(images))
        sums += np.bincount(nearest, squares.min(axis=1), minlength=len(sums))
    radii = (sums + _PRIOR_IMAGES * sums.sum() / len(features)) / (images + _PRIOR_IMAGES)
    return dataclasses.replace(distance, radii=(radii + FLOOR * features.shape[1]).astype(np.float32))


def fit_distance(
    features: npt.NDArray[Any],
    seed: int,
    prototypes: int = POSITION_PROTOTYPES,
    explained: float = 1.0,
    most: int = MAX_DIRECTIONS,
) -> StageDistance:
    """Fits the whitening and the prototypes of one stage to the features of training images [images, features].

    prototypes: there are at most so many. explained: the part of the variance that the directions must explain.
    most: of them there are no more.

    Whitening: the correlations R are shrunk halfway to the identity (R + 1, Ledoit and Wolf 2004 with a fixed
    intensity), which a few hundred images can bear. Prototypes: the centres of k-means.
    """
    features = features.astype(np.float64)
    centre, deviation = features.mean(axis=0), features.std(axis=0)
    size = float(np.sqrt(np.square(features).mean()))
    floor = max(_LEAST_DEVIATION * float(deviation.mean()), _LEAST_DEVIATION * size, 1e-12)
    inverse_deviation = 1.0 / np.maximum(deviation, floor)
    units = (features - centre) * inverse_deviation
    values, vectors = np.linalg.eigh(units.T @ units / len(units))
    missing = np.cumsum(np.maximum(values, 0.0)) <= (1.0 - explained) * max(float(values.sum()), 1e-12)
    fewest = int(missing.sum()) if explained < 1.0 else 0
    kept = slice(max(0, min(fewest, len(values) - 1), len(values) - most), None)
    others = np.maximum(values[: kept.start], 0.0)
    spreads = 1.0 + np.maximum(values[kept], 0.0)
    directions = vectors[:, kept] / np.sqrt(spreads)
    return StageDistance(
        centre=centre.astype(np.float32),
        inverse_deviation=inverse_deviation.astype(np.float32),
        directions=directions.astype(np.float32),
        prototypes=find_prototypes(units @ directions, prototypes, seed).astype(np.float32),
        spreads=spreads.astype(np.float32),
        residual=float(np.float32(1.0 / (1.0 + others.mean()))) if len(others) else 0.0,  # as it is stored
    )


def find_prototypes(points: Floats, most: int, seed: int) -> Floats:
    """Returns at most so many points that stand for all, [prototypes, k]: the centres of k-means."""
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    count = min(most, max(1, len(points) // 2))
    if len(points) <= _MOST_AT_ONCE:
        clusters = KMeans(count, n_init=1, random_state=seed)
    else:
        clusters = MiniBatchKMeans(count, n_init=1, random_state=seed, batch_size=_POINTS_PER_BATCH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # images that are alike leave fewer prototypes
        clusters.fit(points)
    return np.unique(clusters.cluster_centers_, axis=0)


def measure(distance: StageDistance, features: npt.NDArray[Any]) -> Floats:
    """Returns the squared distance per feature, plus FLOOR, as the graph computes it, in float64: [images]."""
    least = [squares.min(axis=1) for squares in _square_distances(distance, features)]
    return np.asarray(np.concatenate(least) / features.shape[1] + FLOOR)


def compute_scores(distance: StageDistance, features: npt.NDArray[Any]) -> Floats:
    """Returns what the graph scores, in float64: [images]."""
    if distance.radii is None:
        return np.asarray(np.log(measure(distance, features)))
    radii = distance.radii.astype(np.float64)
    constants = 0.5 * np.log(radii)
    parts = [(squares / (2 * radii) + constants).min(axis=1) for squares in _square_distances(distance, features)]
    return np.concatenate(parts)


def _square_distances(distance: StageDistance, features: npt.NDArray[Any]) -> Iterator[Floats]:
    """Yields the squared distances to the prototypes, with what lies outside the directions, [images, prototypes].

    The images come in parts of at most _MOST_AT_ONCE, since the distances of all may not fit into memory.
    """
    prototypes = distance.prototypes.astype(np.float64)
    constants = np.square(prototypes).sum(axis=1)
    for part in np.array_split(features, math.ceil(len(features) / _MOST_AT_ONCE)):
        units = np.clip((part - distance.centre.astype(np.float64)) * distance.inverse_deviation, -LIMIT, LIMIT)
        whitened = units @ distance.directions
        squares = np.square(whitened).sum(axis=1)
        if distance.residual:
            outside = np.square(units).sum(axis=1) - (np.square(whitened) * distance.spreads).sum(axis=1)
            squares += distance.residual * np.maximum(outside, 0.0)
        yield np.maximum(squares[:, None] + constants - 2.0 * whitened @ prototypes.T, 0.0)
