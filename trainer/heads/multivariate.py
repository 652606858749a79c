"""Several real values with a joint normal distribution."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import tensorflow as tf
from msgspec import Meta

from probrt.trainer.heads.base import Moments
from probrt.trainer.heads.formulas import Shapes, Sides, quantity_shapes
from probrt.trainer.heads.real import LOG_SCALE, RealHead


class MultivariateNormalHead(RealHead, frozen=True, kw_only=True, tag="multivariate_normal"):
    """Real values with jointly normal noise; quantities [batch, outputs], plus `covariance` [batch, outputs, outputs].

    aleatoric is the covariance's diagonal; `covariance` is of the noise, averaged over draws.
    covariance: "diagonal"; "low_rank", diagonal plus `rank` outer products; or "full", by its Cholesky factor.
    labels: names of the outputs, two or more.
    """

    labels: Annotated[list[str], Meta(min_length=2)]
    covariance: Literal["diagonal", "low_rank", "full"] = "full"
    rank: Annotated[int, Meta(ge=1)] = 1

    @property
    def channels(self) -> int:
        off = {"diagonal": 0, "low_rank": self.size * self.rank, "full": self.size * (self.size - 1) // 2}
        return 2 * self.size + off[self.covariance]

    def distribution(self, channels: tf.Tensor) -> Any:
        import tensorflow_probability as tfp

        tfd = tfp.distributions
        location, diagonal, off = self._parts(channels)
        if self.covariance == "diagonal":
            return tfd.MultivariateNormalDiag(location, diagonal)
        if self.covariance == "full":
            return tfd.MultivariateNormalTriL(location, off + tf.linalg.diag(diagonal))
        # The covariance is the square of a stack: the diagonal matrix above the factor's rows. A QR decomposition of it
        # needs half the digits of one of the covariance, which is singular in float32 where the diagonal is small.
        stack = tf.concat([tf.linalg.diag(diagonal), tf.linalg.matrix_transpose(off)], -2)
        upper = tf.linalg.qr(stack).r
        return tfd.MultivariateNormalTriL(location, tf.linalg.matrix_transpose(upper))

    def moments(self, channels: tf.Tensor) -> Moments:
        location, diagonal, off = self._parts(channels)
        eye = tf.eye(self.size)
        if self.covariance == "full":
            covariance = _outer(off + tf.expand_dims(diagonal, -1) * eye)
        else:
            covariance = tf.expand_dims(tf.square(diagonal), -1) * eye
            if self.covariance == "low_rank":
                covariance += _outer(off)
        return Moments(location, tf.reduce_sum(covariance * eye, axis=-1), {"covariance": covariance})

    def calibrate_channels(self, channels: tf.Tensor, value: tf.Tensor | float) -> tf.Tensor:
        sizes = [self.size, self.size, self.channels - 2 * self.size]
        location, log_diagonal, off = tf.split(channels, sizes, axis=-1)
        scale = tf.cast(value, channels.dtype)
        return tf.concat([location, log_diagonal + tf.math.log(scale), off * scale], axis=-1)

    def output_shapes(self, positions: Sides) -> Shapes:
        shape = [*positions, self.size]
        return {**quantity_shapes(shape, shape), "covariance": [*shape, self.size]}

    def _parts(self, channels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Location [..., outputs], diagonal [..., outputs], and the off-diagonal part: the strictly lower triangle of
        the Cholesky factor [..., outputs, outputs], or the low-rank factor [..., outputs, rank]."""
        size = self.size
        location, log_diagonal, off = tf.split(channels, [size, size, self.channels - 2 * size], axis=-1)
        centre, spread = self.centres_and_spreads()
        diagonal = tf.exp(tf.clip_by_value(log_diagonal, -LOG_SCALE, LOG_SCALE)) * spread
        columns = size if self.covariance == "full" else self.rank
        if self.covariance == "full" and size > 1:
            # A product with a constant of 0 and 1 places them: every format has that.
            rows, below = np.tril_indices(size, -1)
            place = np.zeros([len(rows), size * size], np.float32)
            place[np.arange(len(rows)), rows * size + below] = 1.0
            off = tf.tensordot(off, tf.constant(place), 1)
        if self.covariance == "diagonal":
            return location * spread + centre, diagonal, off
        off = tf.reshape(off, tf.concat([tf.shape(location)[:-1], [size, columns]], 0)) * spread[:, None]
        return location * spread + centre, diagonal, off


def _outer(factor: tf.Tensor) -> tf.Tensor:
    """factor factorᵀ over the last two axes, in ops that every format has for any rank."""
    return tf.reduce_sum(tf.expand_dims(factor, -2) * tf.expand_dims(factor, -3), axis=-1)
