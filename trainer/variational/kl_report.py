"""The KL report of a training log: what each random weight costs, and how sure it is."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from msgspec import Struct

from probrt.trainer.variational.random_weight import RandomWeight, find_random_weights


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
    """Returns one report per random weight, in the order of the layers.

    draws: the number of draws that give the standard deviations (each to 1 part in sqrt(2 draws)) and the open KLs.
    """
    return [_report_weight(weight, seed, draws) for weight in find_random_weights(model)]


def format_kl_report(reports: list[WeightReport]) -> list[str]:
    """Formats the reports as aligned lines of text."""
    width = max((len(report.name) for report in reports), default=0)
    return [
        f"{report.name:<{width}}  {report.nats:12.1f} nats  {report.nats_per_weight:8.4f} per weight  "
        f"signal to noise {report.signal_to_noise:.3g}"
        for report in reports
    ]


def _report_weight(weight: RandomWeight, seed: int, draws: int) -> WeightReport:
    @tf.function(autograph=False)
    def draw(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        noise = weight.noise(seed, index)
        value = weight.from_noise(noise)
        return value, weight.kl(value, noise)

    values, nats = zip(*(draw(tf.constant(index)) for index in range(draws)), strict=True)
    spread = np.std(np.stack(values), axis=0)
    size = int(np.prod(weight.shape))
    total = float(np.mean(nats))
    ratio = np.abs(weight.mean().numpy()) / np.maximum(spread, 1e-12)
    return WeightReport(weight.name, size, total, total / size, float(np.median(ratio)))
