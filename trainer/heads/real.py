"""The kind "real": real values, each output with a mean and a variance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, Self

import msgspec
import numpy as np
import tensorflow as tf

from probrt.runtime.bundle.manifest import HeadRecord, Kind
from probrt.runtime.calibration.conformal import score_distance
from probrt.trainer.heads.base import Answer, Head, Positive, TargetRange
from probrt.trainer.heads.formulas import Shapes, Sides, mean_over_known, quantity_shapes

# A scale lies within e^-6.9 … e^6.9 (1e-3 … 1e3) spreads: a likelihood must not reach infinity on a lucky example.
LOG_SCALE = 6.9


class RealHead(Head, frozen=True, kw_only=True):
    """A head of real values; every quantity is [batch, outputs], uncertainties are variances.

    labels: names of the outputs, each a column of the table; one, named like the head, unless given.
    unit: of the values.
    centre, spread: mean and standard deviation of the training targets, computed from the data;
        channels are in these units, so that any target trains alike.
    """

    kind: ClassVar[Kind] = "real"
    metric_name: ClassVar[str] = "MAE"
    higher_is_better: ClassVar[bool] = False
    calibrates: ClassVar[Literal["temperature", "scale", "nothing"]] = "scale"
    position_method: ClassVar[Literal["lac", "scaled"]] = "scaled"
    needs_samples: ClassVar[bool] = True
    interpolation: ClassVar[Literal["nearest", "bilinear"]] = "bilinear"

    labels: list[str] = []
    unit: str = ""
    centre: list[float] = []
    spread: list[Positive] = []

    @property
    def size(self) -> int:
        """Number of outputs."""
        return max(1, len(self.labels))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.labels) or (self.name,)

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.target,) if self.per_position or not self.labels else tuple(self.labels)

    def split_uncertainty(
        self, mean: tf.Tensor, aleatoric: tf.Tensor, spread: Callable[[], tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The law of total variance."""
        epistemic = spread()
        return aleatoric + epistemic, epistemic

    def parse_mask(self, values: np.ndarray, high: float) -> np.ndarray:
        if values.shape[-1] != self.size:
            raise ValueError(f"has {values.shape[-1]} channels, needs {self.size}")
        return super().parse_mask(values, high)

    def missing_target(self, positions: Sequence[int] = ()) -> np.ndarray:
        return np.full([*positions, self.size], np.nan, np.float32)

    def standardise(self, targets: np.ndarray) -> Self:
        if self.centre:
            return self
        values = self.to_location_scale(targets.reshape(-1, self.size).astype(np.float64))
        known = values[np.isfinite(values).all(axis=-1)]
        if not len(known):
            return self
        spread = np.maximum(known.std(axis=0), 1e-6)
        return msgspec.structs.replace(self, centre=known.mean(axis=0).tolist(), spread=spread.tolist())

    def target_ranges(self, targets: np.ndarray) -> list[TargetRange]:
        ranges = []
        for name, column in zip(self.names, targets.reshape(-1, self.size).T, strict=True):
            known = column[np.isfinite(column)]
            if len(known):
                ranges.append(TargetRange(name, float(known.min()), float(known.max()), self.unit))
        return ranges

    def to_location_scale(self, targets: np.ndarray) -> np.ndarray:
        """Transforms targets to the scale of the location: a logarithm for positive values, for example."""
        return targets

    def centres_and_spreads(self) -> tuple[tf.Tensor, tf.Tensor]:
        """The targets' mean and standard deviation, float32 [outputs]."""
        centre = tf.constant(self.centre or [0.0] * self.size, tf.float32)
        return centre, tf.constant(self.spread or [1.0] * self.size, tf.float32)

    def metric(self, mean: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        return mean_over_known(tf.reduce_mean(tf.abs(mean - target), axis=-1), self.is_known(target))

    def find_errors(self, mean: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        del mean, target
        return None

    def conformal_scores(self, answer: Answer, target: np.ndarray) -> dict[str, np.ndarray]:
        deviation = np.sqrt(answer["total"].astype(np.float64))
        return {"scaled": score_distance(answer["mean"].astype(np.float64), deviation, target)}

    def position_scores(self, answer: Answer, target: np.ndarray) -> np.ndarray:
        count = len(target)
        deviation = np.sqrt(np.maximum(answer["total"].reshape(count, -1), 1e-30))
        distance: np.ndarray = np.abs(target.reshape(count, -1) - answer["mean"].reshape(count, -1)) / deviation
        return distance.astype(np.float32)

    def output_shapes(self, positions: Sides) -> Shapes:
        return quantity_shapes([*positions, self.size], [*positions, self.size])

    def to_record(self, positions: Sides) -> HeadRecord:
        return msgspec.structs.replace(super().to_record(positions), unit=self.unit)
