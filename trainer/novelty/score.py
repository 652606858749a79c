"""The novelty of pooled features, in plain ops that every format has.

Per set of pooled features, these are standardised and whitened, and the least surprise among prototypes is taken: the
squared distance in units of the prototype's own spread, plus half the logarithm of that. The score is the weighted sum:
0 for an average calibration image, in their standard deviations; above 1 it grows as a logarithm, so that no number is
huge. Of positions, and in models of before, the logarithm of the distance to the nearest prototype is taken instead.
`fit.py` finds all the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from probrt.trainer.novelty.stages import StageRef

Floats = npt.NDArray[np.float32]
# The second is that of models that were trained before; their distances stay as they are.
Method = Literal["nearest prototype in units of its spread, whitened", "nearest prototype, whitened"]

# Standardised features are cut off here, so that no square is infinite for any finite image.
LIMIT = 1e6
# Added to a squared distance per feature: its logarithm stays finite, and rounding cannot move it.
FLOOR = 1e-4


@dataclass(frozen=True)
class StageDistance:
    """The distance of one stage's features [batch, features] to its prototypes.

    centre, inverse_deviation: of each feature over the training images, [features].
    directions: to whitened coordinates, [features, k]; each column is an eigenvector v of the correlations, divided by
        the root of 1 + its eigenvalue.
    prototypes: in whitened coordinates, [prototypes, k].
    spreads: 1 + eigenvalue of each direction, [k].
    residual: the weight of what lies outside the directions: 1 / (1 + the mean of the other eigenvalues), or 0 if the
        directions span all features.
    radii: the mean squared distance of the training images next to each prototype, [prototypes]; None to compare
        plain distances.
    """

    centre: Floats
    inverse_deviation: Floats
    directions: Floats
    prototypes: Floats
    spreads: Floats
    residual: float
    radii: Floats | None = None

    def score(self, features: tf.Tensor) -> tf.Tensor:
        """Returns the least surprise among the prototypes, or without radii the logarithm of the distance, [batch]."""
        if self.radii is None:
            return tf.math.log(self.measure(features))
        return add_surprises([self], np.ones(1, np.float32), 0.0, features)

    def measure(self, features: tf.Tensor) -> tf.Tensor:
        """Returns the squared distance to the nearest prototype per feature, plus FLOOR, [batch]."""
        whitened, lengths = self._whiten(features)
        # |z - p|² = |z|² + (|p|² - 2 z·p): a matrix product instead of an array of all differences.
        others = tf.constant(np.square(self.prototypes).sum(axis=1))
        nearest = tf.reduce_min(others - 2.0 * tf.matmul(whitened, self.prototypes.T), axis=1)
        return tf.maximum(lengths + nearest, 0.0) / float(len(self.centre)) + FLOOR

    def _whiten(self, features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the whitened coordinates [batch, k] and the squared length, with what lies outside them, [batch]."""
        units = _standardise(features, self.centre, self.inverse_deviation)
        whitened = tf.matmul(units, self.directions)
        lengths = tf.reduce_sum(tf.square(whitened), axis=1)
        if self.residual:
            inside = tf.reduce_sum(tf.square(whitened) * self.spreads, axis=1)
            outside = tf.reduce_sum(tf.square(units), axis=1) - inside
            lengths += self.residual * tf.maximum(outside, 0.0)
        return whitened, lengths


@dataclass(frozen=True)
class PositionNovelty:
    """How a model computes the novelty of each position of a two-dimensional image.

    stages: those of one resolution. distances: of the features of one position, of each stage.
    weights: of the logarithm of each distance, [stages]. offset: is taken from the weighted sum.
    """

    stages: tuple[StageRef, ...]
    distances: tuple[StageDistance, ...]
    weights: Floats
    offset: float

    def score(self, stages: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns the scores [batch, height, width], float32, of stages [batch, height, width, channels].

        0 for an average position of the calibration images, in the standard deviations of those positions.
        """
        points = [tf.reshape(tf.cast(stage, tf.float32), [-1, stage.shape[-1]]) for stage in stages]
        sides = tf.shape(stages[0])[:3]
        return tf.reshape(_add_scores(self.distances, self.weights, points) - self.offset, sides)


@dataclass(frozen=True)
class Novelty:
    """How a model computes the novelty of an image.

    stages: their names. distances: of each. weights: of what each distance scores, [stages].
    offset: is taken from the weighted sum.
    scores: of the calibration images, rising, [images].
    width: the steps of the p-value are slopes of this width.
    fitted: the number of training images behind the distances.
    map: of each position; None if the model has no two-dimensional head per position, or leaves the map out.
    """

    stages: tuple[StageRef, ...]
    distances: tuple[StageDistance, ...]
    weights: Floats
    offset: float
    scores: Floats
    width: float
    fitted: int
    map: PositionNovelty | None = None

    @property
    def is_local(self) -> bool:
        """Whether each prototype has its own spread; in models of before none has."""
        return all(distance.radii is not None for distance in self.distances)

    @property
    def method(self) -> Method:
        """What is compared, in words."""
        return "nearest prototype in units of its spread, whitened" if self.is_local else "nearest prototype, whitened"

    @property
    def summary(self) -> str:
        """What it compares, for people."""
        return (
            f"compares {len(self.distances)} sets of features with {self.fitted:,} training images; "
            f"p-values from {len(self.scores):,} validation images, {1 / (len(self.scores) + 1):.2g} at least"
            + ("; maps of positions" if self.map else "")
        )

    def score(self, pooled: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns the score of pooled features, one [batch, features] per stage: float32 [batch]."""
        if not self.is_local:
            return _add_scores(self.distances, self.weights, pooled) - self.offset
        score = add_surprises(self.distances, self.weights, self.offset, tf.concat(list(pooled), axis=1))
        return tf.minimum(score, 1.0) + tf.math.log(tf.maximum(score, 1.0))

    def p_value(self, score: tf.Tensor) -> tf.Tensor:
        """Returns the conformal p-value of scores [batch] (Vovk, Gammerman and Shafer 2005, section 2.2).

        (1 + sum over the n calibration scores c of clip(1 + (c - score) / width, 0, 1)) / (n + 1). A calibration image
        that is at least as novel counts 1, so the value is never below the exact one, (1 + those) / (n + 1). Among
        images like the calibration images, at most a share a has a value of at most a. The slopes keep the value
        continuous: rounding between engines cannot make it jump.
        """
        width, images = np.float32(self.width), len(self.scores)
        ends = self.scores.astype(np.float64) + width
        rounded = ends.astype(np.float32)
        rounded = np.where(rounded < ends, np.nextafter(rounded, np.float32(np.inf)), rounded)
        counts = tf.reduce_sum(tf.clip_by_value(rounded - tf.expand_dims(score, 1), 0.0, width), axis=1)
        return counts * (1.0 / (float(width) * (images + 1.0))) + 1.0 / (images + 1.0)


def add_surprises(distances: Sequence[StageDistance], weights: Floats, offset: float, features: tf.Tensor) -> tf.Tensor:
    """Returns the weighted sum of the least surprises of all sets, less an offset, [batch].

    The surprise of a prototype p with radius r is d² / 2r + log(r) / 2, with d the distance to it: per feature the
    negative logarithm of a normal density of that radius, but for a constant.
    distances: with radii. weights: above 0, [sets]. features: of all sets, one after the other, [batch, features].

    What the sets have in common is computed for all at once: of one image a small operation costs more than its
    numbers.
    """
    sets, count = len(distances), max(len(distance.prototypes) for distance in distances)
    sizes = [len(distance.centre) for distance in distances]
    # Standardised as one array: OpenVINO subtracts wrong values from a maximum over the positions of a 1-D map.
    centre = np.concatenate([distance.centre for distance in distances])
    units = _standardise(features, centre, np.concatenate([distance.inverse_deviation for distance in distances]))
    parts = tf.split(units, sizes, axis=1) if sets > 1 else [units]
    whitened = [tf.matmul(part, distance.directions) for part, distance in zip(parts, distances, strict=True)]
    # |z|², with what lies outside the directions: the sum over units and the sum over whitened are columns of their
    # own, because a format may store a column's numbers in int8, as parts of the largest.
    columns = _place_blocks(
        [
            *(np.full((size, 1), distance.residual) for size, distance in zip(sizes, distances, strict=True)),
            *(1.0 - distance.residual * distance.spreads[:, None].astype(np.float64) for distance in distances),
        ]
    )
    lengths = tf.matmul(tf.square(tf.concat([units, *whitened], axis=1)), columns)
    # d² / 2r = |z|² / 2r + |p|² / 2r - z · p / r: matrix products instead of an array of all differences.
    tables = [_Table.of(distance, weight, count) for distance, weight in zip(distances, weights.tolist(), strict=True)]
    shared = np.tile(_place_blocks([table.inverse[None] for table in tables]), (2, 1))
    levels = np.concatenate([table.levels for table in tables]) - np.float32(offset) / sets
    products = [tf.matmul(points, table.scaled) for points, table in zip(whitened, tables, strict=True)]
    surprises = tf.concat(products, axis=1) + (tf.matmul(lengths, shared) + levels.astype(np.float32))
    return tf.reduce_sum(tf.reduce_min(tf.reshape(surprises, [-1, sets, count]), axis=2), axis=1)


@dataclass(frozen=True)
class _Table:
    """A set's prototypes as matrices, times the set's weight: weight / 2r, [count]; weight (|p|² / 2r + log(r) / 2),
    [count]; and - weight p / r, [k, count]."""

    inverse: npt.NDArray[np.float64]
    levels: npt.NDArray[np.float64]
    scaled: Floats

    @classmethod
    def of(cls, distance: StageDistance, weight: float, count: int) -> Self:
        """Returns the table of a set with `count` prototypes; the last one stands for those that are missing."""
        if distance.radii is None:
            raise ValueError("distances without radii have no surprise")
        rows = np.minimum(np.arange(count), len(distance.prototypes) - 1)
        radii, prototypes = distance.radii.astype(np.float64)[rows], distance.prototypes.astype(np.float64)[rows]
        inverse = weight / (2.0 * radii)
        levels = np.square(prototypes).sum(axis=1) * inverse + 0.5 * weight * np.log(radii)
        return cls(inverse, levels, (prototypes.T * (-2.0 * inverse)).astype(np.float32))


def _place_blocks(blocks: Sequence[npt.NDArray[np.float64]]) -> Floats:
    """Returns a matrix with some blocks along its diagonal and zeros elsewhere."""
    rows, columns = (np.cumsum([0, *(block.shape[axis] for block in blocks)]) for axis in (0, 1))
    matrix = np.zeros((rows[-1], columns[-1]), np.float32)
    for block, row, column in zip(blocks, rows, columns, strict=False):
        matrix[row : row + block.shape[0], column : column + block.shape[1]] = block
    return matrix


def _add_scores(distances: Sequence[StageDistance], weights: Floats, features: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the weighted sum of what the distances score of features, one [rows, features] per stage: [rows]."""
    scores = [distance.score(stage) for distance, stage in zip(distances, features, strict=True)]
    return tf.add_n([weight * score for weight, score in zip(weights.tolist(), scores, strict=True)])


def _standardise(features: tf.Tensor, centre: Floats, inverse_deviation: Floats) -> tf.Tensor:
    return tf.clip_by_value((features - centre) * inverse_deviation, -LIMIT, LIMIT)
