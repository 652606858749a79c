"""Calibration on the validation split: one temperature or scale per head, applied to every draw.

The value is the one that gives the split the highest predictive log-likelihood, the likelihood being
averaged over draws as it is when predicting (Guo et al. 2017 for temperature; Levi et al. 2022 for scale).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from probrt.runtime.manifest import Calibration
from probrt.trainer import data, weights
from probrt.trainer.data import Examples
from probrt.trainer.heads import AnyHead
from probrt.trainer.model import Model

# A grid in steps of 5 %: finer than what a few hundred examples can tell apart.
_GRID = np.exp(np.arange(-30, 31) * 0.05)


def calibrated(model: Model, validation: Examples, seed: int, draws: int = 16, batch: int = 128) -> Model:
    """The model with the temperature or scale of each head that suits the validation split best."""
    totals = {head.name: np.zeros(len(_GRID)) for head in model.heads}

    @tf.function(reduce_retracing=True, autograph=False)
    def scored(one: dict) -> dict[str, tf.Tensor]:
        drawn = []
        for reading in weights.draws(model.network, seed, tf.range(draws), draws):
            with weights.reading(reading):
                drawn.append(model.channels(one["images"]))
        return {
            head.name: _log_likelihood(head, [channels[head.name] for channels in drawn], one["targets"][head.name])
            for head in model.heads
        }

    for one in data.evaluation_batches(validation, batch):
        for name, score in scored(one).items():
            totals[name] += score.numpy()
    found = tuple(_best(head, totals[head.name]) for head in model.heads)
    return dataclasses.replace(model, calibration=found)


def _log_likelihood(head: AnyHead, drawn: list[tf.Tensor], target: tf.Tensor) -> tf.Tensor:
    """Sum over examples and positions of the log of the draws' average likelihood, for each grid value."""
    channels = tf.stack(drawn)

    def at(value: tf.Tensor) -> tf.Tensor:
        each = head.log_prob_each(head.calibrated(channels, value, value), target)
        return tf.reduce_sum(tf.reduce_logsumexp(each, axis=0))

    return tf.map_fn(at, tf.constant(_GRID, tf.float32))


def _best(head: AnyHead, totals: np.ndarray) -> Calibration:
    value = float(round(_GRID[int(np.argmax(totals))], 4))
    if head.combine == "entropy":
        return Calibration(head=head.name, temperature=value)
    return Calibration(head=head.name, scale=value)
