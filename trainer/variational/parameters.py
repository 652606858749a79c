"""Parameters of posteriors and priors: their shapes, initial values, and positive scales."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated

import numpy as np
import tensorflow as tf
from msgspec import Meta, Struct

Parameters = Mapping[str, tf.Tensor]
Positive = Annotated[float, Meta(gt=0)]


class Parameter(Struct, frozen=True):
    """A parameter: its shape, how it starts, and whether it is trained."""

    shape: tuple[int, ...]
    start: Callable[[tuple[int, ...]], tf.Tensor]
    trainable: bool = True


def to_scale(rho: tf.Tensor) -> tf.Tensor:
    """Returns the positive scale softplus(rho) + 1e-5."""
    return tf.math.softplus(rho) + 1e-5


def invert_scale(scale: tf.Tensor) -> tf.Tensor:
    """Inverts `to_scale` for tensors; scales below 1.1e-5 are raised to it."""
    above = tf.maximum(scale - 1e-5, 1e-6)
    return above + tf.math.log(-tf.math.expm1(-above))


def softplus_inverse(value: float) -> float:
    """Returns x with softplus(x) = value, for value > 0."""
    return value + math.log(-math.expm1(-value))


def to_rho(scale: np.ndarray) -> np.ndarray:
    """Inverts `to_scale`; scales below 1.1e-5 are raised to it."""
    above = np.maximum(np.asarray(scale, np.float64) - 1e-5, 1e-6)
    return (above + np.log(-np.expm1(-above))).astype(np.float32)


def compute_he_scale(fan_in: int) -> float:
    """Returns sqrt(2 / fan_in), the scale that keeps a rectified layer's variance (He et al. 2015, eq. 10)."""
    return math.sqrt(2.0 / fan_in)


def normal_start(scale: float, loc: float = 0.0) -> Callable[[tuple[int, ...]], tf.Tensor]:
    """Returns an initializer: a truncated normal around `loc`."""
    return lambda shape: loc + scale * tf.random.truncated_normal(shape)


def constant_start(value: float) -> Callable[[tuple[int, ...]], tf.Tensor]:
    """Returns an initializer: one value everywhere."""
    return lambda shape: tf.fill(shape, tf.constant(value, tf.float32))
