"""What each layer's weights cost and know: the KL report of a training log."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from msgspec import Struct

from probrt.trainer.variational.random_weight import find_random_weights


class WeightReport(Struct, frozen=True):
    """One random weight.

    nats: KL(posterior || prior), averaged over the report's draws where it is not closed.
    nats_per_weight: nats over the number of elements.
    signal_to_noise: the median over elements of |mean| / standard deviation.
    """

    name: str
    weights: int
    nats: float
    nats_per_weight: float
    signal_to_noise: float


def kl_report(model: keras.Layer, seed: int = 0, draws: int = 64) -> list[WeightReport]:
    """One report per random weight, in the order of the layers.

    draws: how many give the standard deviations (each to 1 part in sqrt(2 draws)) and the open KLs.
    """
    return [_report(weight, seed, draws) for weight in find_random_weights(model)]


def kl_lines(reports: list[WeightReport]) -> list[str]:
    """The reports as aligned lines of text."""
    width = max((len(one.name) for one in reports), default=0)
    return [
        f"{one.name:<{width}}  {one.nats:12.1f} nats  {one.nats_per_weight:8.4f} per weight  "
        f"signal to noise {one.signal_to_noise:.3g}"
        for one in reports
    ]


def _report(weight, seed: int, draws: int) -> WeightReport:
    @tf.function(autograph=False)
    def one(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        made = weight.noise(seed, index)
        value = weight.from_noise(made)
        return value, weight.kl(value, made)

    values, nats = zip(*(one(tf.constant(index)) for index in range(draws)), strict=True)
    spread = np.std(np.stack(values), axis=0)
    size = int(np.prod(weight.shape))
    total = float(np.mean(nats))
    ratio = np.abs(weight.mean().numpy()) / np.maximum(spread, 1e-12)
    return WeightReport(weight.name, size, total, total / size, float(np.median(ratio)))
