"""Fits the novelty of the positions of an image, to features of single positions; `fit.py` does that of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probrt.trainer.novelty.fit import (
    LEAST_SCALE,
    LEAST_SPREAD,
    Floats,
    NoNovelty,
    check_features,
    fit_distance,
    measure,
)
from probrt.trainer.novelty.score import PositionNovelty
from probrt.trainer.novelty.stages import StageRef

# Of more images or positions a random part is used.
MAX_IMAGES = 1000
MAX_POSITIONS = 10_000


def fit_positions(
    refs: Sequence[StageRef], training: Sequence[npt.NDArray[Any]], calibration: Sequence[npt.NDArray[Any]], seed: int
) -> PositionNovelty:
    """Returns the novelty of positions.

    training, calibration: features of the same positions of each stage, one [positions, channels] per stage. A stage's
    weight is 1 over the standard deviation of its log distance over the calibration positions. Raises NoNovelty where
    these are all alike, or the network gives values that are not finite.
    """
    check_features(training, "training")
    check_features(calibration, "calibration")
    distances = tuple(fit_distance(features, seed) for features in training)
    logs = [np.log(measure(distance, features)) for distance, features in zip(distances, calibration, strict=True)]
    weights = np.array([1.0 / max(float(values.std()), LEAST_SPREAD) for values in logs], np.float32)
    return _standardise(PositionNovelty(tuple(refs), distances, weights, 0.0), logs)


def rank_positions(novelty: PositionNovelty, calibration: Sequence[npt.NDArray[Any]]) -> PositionNovelty:
    """Returns the novelty with the same distances, in the standard deviations of other positions.

    calibration: as in `fit_positions`. Raises NoNovelty as that does.
    """
    check_features(calibration, "calibration")
    pairs = zip(novelty.distances, calibration, strict=True)
    return _standardise(novelty, [np.log(measure(distance, features)) for distance, features in pairs])


def _standardise(novelty: PositionNovelty, logs: Sequence[Floats]) -> PositionNovelty:
    """Returns the novelty whose score of positions of these log distances, [positions] per stage, is 0 on average."""
    sums = np.stack(logs, axis=1) @ novelty.weights.astype(np.float64)
    scale = float(sums.std())
    if not scale > LEAST_SCALE:
        raise NoNovelty("the features of the calibration positions do not vary")
    weights = (novelty.weights / scale).astype(np.float32)
    return dataclasses.replace(novelty, weights=weights, offset=float(sums.mean() / scale))
