"""One class of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import tensorflow as tf
from msgspec import Meta

from probrt.runtime.bundle.manifest import Combine
from probrt.trainer.heads.base import Head, Moments, Shapes, Sides, four, per_example, x_log_x

# Of a label picture: the value that means "not labelled".
_VOID = 255


class ClassHead(Head, frozen=True, kw_only=True):
    """A head whose target is one of `labels`, in order, as the table writes them.

    Per position the target is a file of class numbers, 0 the first label; 255 in a picture and -1 or NaN in
    an array mean that a position has no label.
    """

    combine: ClassVar[Combine] = "entropy"
    metric_name: ClassVar[str] = "accuracy"
    calibrates: ClassVar[Literal["temperature", "scale", "nothing"]] = "temperature"

    labels: Annotated[list[str], Meta(min_length=2)]

    def parse(self, cells: Sequence[str]) -> np.ndarray:
        cell = cells[0].strip()
        if not cell:
            return self.missing()
        if cell not in self.labels:
            raise ValueError(f"class {cell!r} is none of {', '.join(self.labels)}")
        return np.int32(self.labels.index(cell))

    def from_map(self, values: np.ndarray, high: float) -> np.ndarray:
        numbers = values[..., 0]
        void = ~np.isfinite(numbers) | (numbers == -1) | ((numbers == _VOID) & (high >= _VOID))
        numbers = np.where(void, -1, numbers)
        known = numbers[~void]
        if known.size and (known.min() < 0 or known.max() >= len(self.labels) or (known % 1).any()):
            wrong = known[(known < 0) | (known >= len(self.labels)) | (known % 1 != 0)][0]
            raise ValueError(f"class number {wrong:g} is none of 0 to {len(self.labels) - 1}")
        return numbers.astype(np.int32)

    def missing(self, positions: Sequence[int] = ()) -> np.ndarray:
        return np.full(positions, -1, np.int32)

    def known(self, target: tf.Tensor) -> tf.Tensor:
        return target >= 0

    def filled(self, target: tf.Tensor, known: tf.Tensor) -> tf.Tensor:
        return tf.where(known, target, tf.zeros_like(target))

    def total(self, mean: tf.Tensor) -> tf.Tensor:
        return -tf.reduce_sum(x_log_x(mean), axis=-1)

    def metric(self, mean: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        right = tf.cast(tf.argmax(mean, axis=-1, output_type=target.dtype) == target, tf.float32)
        return per_example(right, self.known(target))

    def outputs(self, positions: Sides) -> Shapes:
        return four([*positions, len(self.labels)], positions)


class CategoricalHead(ClassHead, frozen=True, kw_only=True, tag="categorical"):
    """One class of several; mean [batch, classes], uncertainties [batch], in nats.

    labels: the class names, in order, as the table writes them.
    """

    @property
    def channels(self) -> int:
        return len(self.labels)

    def distribution(self, channels: tf.Tensor) -> Any:
        import tensorflow_probability as tfp

        return tfp.distributions.Categorical(logits=channels)

    def moments(self, channels: tf.Tensor) -> Moments:
        probabilities = tf.nn.softmax(channels)
        return Moments(probabilities, -tf.reduce_sum(probabilities * tf.nn.log_softmax(channels), axis=-1))

    def calibrated(self, channels: tf.Tensor, temperature: float, scale: float) -> tf.Tensor:
        return channels / temperature


class OrdinalHead(ClassHead, frozen=True, kw_only=True, tag="ordinal"):
    """One class of several that have an order; mean [batch, classes], uncertainties [batch], in nats.

    The cumulative-logit model (McCullagh 1980): P(y > k) = sigmoid(location - cut k), the location from the
    image, the cuts learned and the same for every image.
    labels: the class names from the lowest to the highest.
    """

    @property
    def channels(self) -> int:
        return 1

    @property
    def learned(self) -> tuple[float, ...]:
        # The first cut, then the logarithm of each next one's distance; even classes at location 0.
        shares = np.arange(1, len(self.labels)) / len(self.labels)
        cuts = np.log(shares / (1 - shares))
        return (float(cuts[0]), *(float(step) for step in np.log(np.diff(cuts))))

    def distribution(self, channels: tf.Tensor) -> Any:
        import tensorflow_probability as tfp

        location, cuts = self._location_and_cuts(channels)
        return tfp.distributions.OrderedLogistic(cutpoints=cuts, loc=location[..., 0])

    def moments(self, channels: tf.Tensor) -> Moments:
        location, cuts = self._location_and_cuts(channels)
        above = tf.sigmoid(location - cuts)
        ones = tf.ones_like(location)
        probabilities = tf.concat([ones, above], -1) - tf.concat([above, tf.zeros_like(location)], -1)
        return Moments(probabilities, self.total(probabilities))

    def calibrated(self, channels: tf.Tensor, temperature: float, scale: float) -> tf.Tensor:
        location, first, steps = tf.split(channels, [1, 1, len(self.labels) - 2], axis=-1)
        cooler = tf.math.log(tf.cast(temperature, channels.dtype))
        return tf.concat([location / temperature, first / temperature, steps - cooler], axis=-1)

    def _location_and_cuts(self, channels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        location, first, steps = tf.split(channels, [1, 1, len(self.labels) - 2], axis=-1)
        # Bounded, so that no cut runs away to where a class can no longer be reached.
        distances = tf.exp(tf.clip_by_value(steps, -6.9, 6.9))
        cuts, last = [first], first
        for number in range(len(self.labels) - 2):
            last = last + distances[..., number : number + 1]
            cuts.append(last)
        return location, tf.concat(cuts, axis=-1)
