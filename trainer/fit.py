"""Fitting: the evidence lower bound by stochastic gradients.

The loss per example is -log p(y | x, w) summed over heads, with one weight draw per step, plus
kl_weight KL(posterior || prior) / N (Blundell et al. 2015, with the KL spread over the N examples).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from probrt.runtime.errors import Fault
from probrt.trainer import data, weights
from probrt.trainer.config import Fit
from probrt.trainer.data import Examples
from probrt.trainer.model import Model
from probrt.trainer.objective import Objective


@dataclass(frozen=True)
class Progress:
    """Where a fit stands after an epoch (means over its steps; metrics on the validation split)."""

    epoch: int
    epochs: int
    loss: float
    kl: float
    metrics: dict[str, float]


def fit(
    model: Model,
    train: Examples,
    validation: Examples,
    settings: Fit,
    seed: int,
    shift: int,
    stepped: Callable[[int, int, float, float], None] = lambda step, steps, loss, kl: None,
) -> Iterator[Progress]:
    """Fits the model's variables in place, giving progress after each epoch.

    stepped: called after each step with (step, steps, loss per example, KL in nats).
    Raises Fault when the loss is no longer finite.
    """
    per_epoch = math.ceil(len(train) / settings.batch)
    steps = per_epoch * settings.epochs
    optimizer = keras.optimizers.Adam(_schedule(settings, steps), global_clipnorm=settings.clip)
    optimizer.build(model.network.trainable_variables)
    step_function = _step(model, optimizer, settings, len(train), steps, seed)
    metrics = evaluator(model)
    losses, kls = [], []
    for step, one in enumerate(_drawn(train, settings, seed, shift)):
        loss, kl = (float(value) for value in step_function(one, tf.constant(step, tf.int32)))
        if not math.isfinite(loss):
            raise Fault(f"fit: the loss is {loss} at step {step + 1}: lower fit.learning_rate or raise fit.warmup")
        losses.append(loss)
        kls.append(kl)
        stepped(step + 1, steps, loss, kl)
        if (step + 1) % per_epoch == 0:
            yield Progress((step + 1) // per_epoch, settings.epochs, _mean(losses), _mean(kls), metrics(validation))
            losses, kls = [], []


def evaluator(model: Model, batch: int = 256) -> Callable[[Examples], dict[str, float]]:
    """A function of a split that gives each head's metric at the posterior mean, NaN where no example has a target."""

    @tf.function(reduce_retracing=True, autograph=False)
    def scored(one: dict) -> dict[str, tf.Tensor]:
        with weights.reading(weights.Mean()):
            moments = model.moments(one["images"])
        return {head.name: head.metric(moments[head.name].mean, one["targets"][head.name]) for head in model.heads}

    def metrics(examples: Examples) -> dict[str, float]:
        scores: dict[str, list[np.ndarray]] = {head.name: [] for head in model.heads}
        for one in data.evaluation_batches(examples, batch):
            for name, score in scored(one).items():
                scores[name].append(score.numpy())
        return {name: _mean(np.concatenate(score)) for name, score in scores.items()}

    return metrics


def _step(
    model: Model, optimizer: keras.optimizers.Optimizer, settings: Fit, count: int, steps: int, seed: int
) -> Callable[[dict, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    objective = Objective(model)
    variables = [variable.value for variable in model.network.trainable_variables]

    @tf.function(reduce_retracing=True, autograph=False)
    def step_function(one: dict, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape, weights.reading(weights.Fit(seed, step)) as reading:
            channels = model.channels(one["images"], training=True)
            each = objective.loss(objective.terms(channels, one["targets"]))
            kl = tf.add_n([weight.kl(reading.value(weight)) for weight in model.weights] or [tf.constant(0.0)])
            risen = tf.cast(step + 1, tf.float32) / max(1.0, settings.kl_warmup * steps)
            kl_weight = settings.kl_weight * tf.minimum(1.0, risen)
            loss = tf.reduce_mean(each) + objective.penalty() + kl_weight * kl / count
        gradients = tape.gradient(loss, variables)
        optimizer.apply(gradients, model.network.trainable_variables)
        return loss, kl

    return step_function


def _schedule(settings: Fit, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    warmup = round(settings.warmup * steps)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else settings.learning_rate,
        warmup_target=settings.learning_rate if warmup else None,
        warmup_steps=warmup,
        decay_steps=max(1, steps - warmup),
    )


def _drawn(train: Examples, settings: Fit, seed: int, shift: int) -> Iterator[dict]:
    for epoch in range(settings.epochs):
        yield from data.batches(train, settings.batch, (seed, epoch), shift)


def _mean(values: list[float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else math.nan
