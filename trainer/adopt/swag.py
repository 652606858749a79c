"""SWAG-diagonal: the path of SGD around the trained weights gives each its mean and its variance (Maddox et al. 2019).

From the finished model, SGD of a constant rate goes on for some epochs. The running mean and variance of each kernel's
weights become its posterior (their eq. 1 and section 3.1, without the low-rank part). Their scale is then chosen on
held-out examples, because it follows the rate, which nobody knows beforehand. All other weights, batch normalisation's
statistics among them, stay as they were while SGD runs, so they fit the mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from probrt.runtime.errors import ConfigError
from probrt.trainer import data
from probrt.trainer.data import Examples
from probrt.trainer.fit.objective import Objective
from probrt.trainer.model import Model
from probrt.trainer.variational.handlers import MeanHandler, use_handler
from probrt.trainer.variational.parameters import to_rho

_BATCH, _MOMENTUM, _CLIP = 32, 0.9, 10.0
# Steps that leave the trained weights before the first is counted, as a share of all.
_BURN_IN = 0.2
_FACTORS = 2.0 ** np.arange(-3, 7)
_DRAWS = 8
# In standard errors of the score, as for Laplace's prior.
_TOLERANCE = 0.25


@dataclass(frozen=True)
class SwagFit:
    """The number of random kernels, of SGD's steps, and what their deviations were multiplied by."""

    kernels: int
    steps: int
    factor: float


def fit_swag(
    model: Model,
    train: Examples,
    validation: Examples,
    *,
    epochs: int,
    rate: float,
    seed: int,
    on_step: Callable[[int, int, float], None],
) -> SwagFit:
    """Gives the random kernels of a model their means and deviations, in place.

    model: with normal posteriors around the trained weights, such as `spread_kernels` returns. on_step: called with the
    step, their number and the loss. Raises ConfigError for a rate at which the loss is no number.
    """
    means, variances, steps = _follow_path(model, train, epochs=epochs, rate=rate, seed=seed, on_step=on_step)
    for weight, mean in zip(model.weights, means, strict=True):
        weight.parameters["loc"].assign(mean)
    factor = _choose_factor(model, variances, validation, seed)
    return SwagFit(len(means), steps, factor)


def _follow_path(
    model: Model,
    train: Examples,
    *,
    epochs: int,
    rate: float,
    seed: int,
    on_step: Callable[[int, int, float], None],
) -> tuple[list[np.ndarray], list[np.ndarray], int]:
    """Runs SGD; returns mean and variance of each kernel over its steps, and the number of steps."""
    locations = [weight.parameters["loc"] for weight in model.weights]
    objective = Objective(model)
    optimizer = keras.optimizers.SGD(rate, momentum=_MOMENTUM, global_clipnorm=_CLIP)
    optimizer.build(locations)

    @tf.function(reduce_retracing=True, autograph=False)
    def step(images: tf.Tensor, targets: dict[str, tf.Tensor]) -> tf.Tensor:
        with use_handler(MeanHandler()), tf.GradientTape() as tape:
            channels = model.channels(images)
            loss = tf.reduce_mean(objective.loss(objective.log_likelihoods(channels, targets)))
        gradients = tape.gradient(loss, [location.value for location in locations], unconnected_gradients="zero")
        optimizer.apply(gradients, locations)
        return loss

    rng = np.random.default_rng(seed)
    per_epoch = max(1, len(train) // _BATCH)
    steps = epochs * per_epoch
    first = int(_BURN_IN * steps)
    means = [np.zeros(location.shape) for location in locations]
    squares = [np.zeros(location.shape) for location in locations]
    for index in range(steps):
        if index % per_epoch == 0:
            order = rng.permutation(len(train))
        rows = order[index % per_epoch * _BATCH :][:_BATCH]
        targets = {name: tf.constant(values[rows]) for name, values in train.targets.items()}
        loss = float(step(tf.constant(train.images[rows], tf.float32), targets))
        if not math.isfinite(loss):
            raise ConfigError(f"swag: the loss is no number after {index} steps at a rate of {rate:g}; lower --rate")
        on_step(index + 1, steps, loss)
        if index >= first:  # Welford's update
            count = index - first + 1
            for place, location in enumerate(locations):
                value = np.asarray(location, np.float64)
                change = value - means[place]
                means[place] += change / count
                squares[place] += change * (value - means[place])
    return means, [total / max(1, steps - first) for total in squares], steps


def _choose_factor(model: Model, variances: list[np.ndarray], validation: Examples, seed: int) -> float:
    """Sets and returns the largest factor on the deviations whose predictions of held-out examples are as good as any.

    As good: their log-likelihood is less than the best by at most a quarter of its standard error.
    """

    @tf.function(reduce_retracing=True, autograph=False)
    def log_likelihood(images: tf.Tensor, targets: dict[str, tf.Tensor], index: tf.Tensor) -> tf.Tensor:
        with use_handler(model.draw_handler(tf.constant(seed), index)):
            channels = model.channels(images)
        return tf.add_n([head.log_prob(channels[head.name], targets[head.name]) for head in model.heads])

    batches = [(batch["images"], batch["targets"]) for batch in data.evaluation_batches(validation, 64)]
    scores = []
    for factor in _FACTORS:
        _set_deviations(model, variances, factor)
        draws = [
            np.concatenate([log_likelihood(images, targets, tf.constant(index)).numpy() for images, targets in batches])
            for index in range(_DRAWS)
        ]
        scores.append(np.logaddexp.reduce(np.asarray(draws, np.float64), axis=0) - math.log(_DRAWS))
    best = max(scores, key=lambda score: float(np.nan_to_num(score.sum(), nan=-np.inf)))
    allowed = _TOLERANCE * best.std() / math.sqrt(len(best))
    chosen = max(
        float(factor) for factor, score in zip(_FACTORS, scores, strict=True) if (best - score).mean() <= allowed
    )
    _set_deviations(model, variances, chosen)
    return chosen


def _set_deviations(model: Model, variances: list[np.ndarray], factor: float) -> None:
    for weight, variance in zip(model.weights, variances, strict=True):
        weight.parameters["rho"].assign(to_rho(factor * np.sqrt(variance)))
