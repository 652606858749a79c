"""Real values that may have several likely answers."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import numpy as np
import tensorflow as tf
from msgspec import Meta

from probrt.runtime.bundle.manifest import HeadRecord
from probrt.trainer.heads.base import Moments
from probrt.trainer.heads.formulas import Shapes, Sides, quantity_shapes
from probrt.trainer.heads.real import LOG_SCALE, RealHead


class NormalMixtureHead(RealHead, frozen=True, kw_only=True, tag="normal_mixture"):
    """Real values with a mixture of normals per output (Bishop 1994); quantities [batch, outputs], plus `bins`.

    `bins` [batch, outputs, bins] is the predictive probability of each of `bins` equal intervals over the
    training targets' mean ± 4 standard deviations; the outer two hold everything beyond. It shows where the likely
    answers are, which mean and variance do not. It is averaged over draws, which is exact.
    components: normals per output.
    """

    components: Annotated[int, Meta(ge=2)] = 3
    bins: Annotated[int, Meta(ge=2)] = 32

    @property
    def channels(self) -> int:
        return 3 * self.components * self.size

    @property
    def edges(self) -> list[list[float]]:
        """The inner borders of the bins, bins - 1 for each output, in the targets' unit."""
        steps = np.linspace(-4.0, 4.0, self.bins + 1)[1:-1]
        pairs = zip(self.centre or [0.0] * self.size, self.spread or [1.0] * self.size, strict=True)
        return [(centre + spread * steps).tolist() for centre, spread in pairs]

    def distribution(self, channels: tf.Tensor) -> Any:
        import tensorflow_probability as tfp

        tfd = tfp.distributions
        logits, location, scale = self._parts(channels)
        mixture = tfd.MixtureSameFamily(tfd.Categorical(logits=logits), tfd.Normal(location, scale))
        return tfd.Independent(mixture, 1)

    def moments(self, channels: tf.Tensor) -> Moments:
        logits, location, scale = self._parts(channels)
        share = tf.nn.softmax(logits)
        mean = tf.reduce_sum(share * location, axis=-1)
        variance = tf.reduce_sum(share * (tf.square(scale) + tf.square(location - tf.expand_dims(mean, -1))), axis=-1)
        edges = tf.constant(self.edges, tf.float32)[:, None, :]
        location, scale = tf.expand_dims(location, -1), tf.expand_dims(scale, -1)
        below = tf.reduce_sum(tf.expand_dims(share, -1) * _normal_cdf((edges - location) / scale), axis=-2)
        zeros, ones = tf.zeros_like(below[..., :1]), tf.ones_like(below[..., :1])
        bins = tf.concat([below, ones], -1) - tf.concat([zeros, below], -1)
        return Moments(mean, variance, {"bins": tf.maximum(bins, 0.0)})

    def calibrate_channels(self, channels: tf.Tensor, value: tf.Tensor | float) -> tf.Tensor:
        logits, location, log_scale = tf.split(channels, 3, axis=-1)
        return tf.concat([logits, location, log_scale + tf.math.log(tf.cast(value, channels.dtype))], axis=-1)

    def output_shapes(self, positions: Sides) -> Shapes:
        shape = [*positions, self.size]
        return {**quantity_shapes(shape, shape), "bins": [*shape, self.bins]}

    def to_record(self, positions: Sides) -> HeadRecord:
        return msgspec.structs.replace(super().to_record(positions), edges=self.edges)

    def _parts(self, channels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Mixing logits, locations and scales, each [..., outputs, components]."""
        shape = tf.concat([tf.shape(channels)[:-1], [self.size, self.components]], 0)
        logits, location, log_scale = (tf.reshape(part, shape) for part in tf.split(channels, 3, axis=-1))
        centre, spread = (values[:, None] for values in self.centres_and_spreads())
        # Equal components would stay equal, so they start at different places within ± 1 standard deviation.
        offsets = tf.constant(np.linspace(-1.0, 1.0, self.components), tf.float32)
        scale = tf.exp(tf.clip_by_value(log_scale, -LOG_SCALE, LOG_SCALE))
        return logits, (location + offsets) * spread + centre, scale * spread


def _normal_cdf(x: tf.Tensor) -> tf.Tensor:
    """The standard normal's distribution function to 1e-7: TFLite has no erf.

    Abramowitz and Stegun (1964), formula 26.2.17.
    """
    t = 1.0 / (1.0 + 0.2316419 * tf.abs(x))
    series = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
    upper = tf.exp(-0.5 * tf.square(x)) * (series / np.sqrt(2.0 * np.pi).astype(np.float32))
    return tf.where(x < 0, upper, 1.0 - upper)
