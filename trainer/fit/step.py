"""One training step: gradient descent on the negative evidence lower bound, on one device or several.

The loss per example is -log p(y | x, w) summed over heads and averaged over `draws` weight draws, plus
kl_weight KL(posterior || prior) / N (Blundell et al. 2015, with the KL spread over the N examples). Every replica has
its own rows of the batch and the same draw. The KL is divided among the replicas, so that it counts once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from probrt.trainer.config.settings import FitSettings
from probrt.trainer.fit.distribute import split_batch
from probrt.trainer.fit.ivon import Ivon, find_ivon_weights
from probrt.trainer.fit.mixup import mixed_log_likelihoods
from probrt.trainer.fit.objective import Objective, total_kl
from probrt.trainer.fit.optimizers import OptimizerGroup, kl_weight_at, spread_at
from probrt.trainer.model import Model
from probrt.trainer.variational.estimators import TrainingHandler
from probrt.trainer.variational.handlers import use_handler


@dataclass(frozen=True)
class StepResult:
    """Loss and log-likelihood per example and the KL, in nats; the norm of the gradient before clipping."""

    loss: float
    kl: float
    norm: float
    log_likelihood: dict[str, float]

    @property
    def finite(self) -> bool:
        """Whether loss and gradient are finite, so that the step updated the variables."""
        return bool(np.isfinite([self.loss, self.norm]).all())


TrainStep = Callable[[dict[str, Any], int], StepResult]


def make_train_step(
    model: Model,
    objective: Objective,
    optimizers: list[OptimizerGroup],
    settings: FitSettings,
    *,
    train_count: int,
    steps: int,
    seed: int,
) -> TrainStep:
    """Returns a function of a batch {"images", "targets"} and the step's number that updates the variables once.

    train_count: number of training examples, N. steps: number of steps of the whole fit.
    A step whose loss or gradient is not finite applies a gradient of zero.
    """
    strategy = tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    variables = [variable.value for group in optimizers for variable in group.variables]
    names = [head.name for head in model.heads]
    # IVON's update has the prior in closed form: the KL of its weights is reported, but has no gradient.
    closed = {weight.id for weight in find_ivon_weights(model)}

    def run_replica(batch: dict[str, Any], step: tf.Tensor) -> tf.Tensor:
        examples = batch["count"] * settings.draws
        with tf.GradientTape() as tape:
            loss = kl = tf.constant(0.0)
            terms = tf.zeros(len(names))
            for draw in range(settings.draws):
                spread = spread_at(step, settings, steps)
                handler = TrainingHandler(seed, step * settings.draws + draw, batch["first_row"], spread)
                with use_handler(handler):
                    channels = model.channels(batch["images"], training=True)
                    log_likelihoods = mixed_log_likelihoods(objective, channels, batch)
                    loss += tf.reduce_sum(objective.loss(log_likelihoods)) / examples
                    terms += tf.stack([tf.reduce_sum(log_likelihoods[name]) for name in names]) / examples
                    kl += total_kl(model, handler, constant=closed) / settings.draws
            loss += (objective.penalty() + kl_weight_at(step, settings, steps) * kl / train_count) / replicas
        gradients = tape.gradient(loss, variables, unconnected_gradients="zero")
        values = tf.concat([tf.stack([loss, kl / replicas]), terms], 0)
        if replicas > 1:
            context = tf.distribute.get_replica_context()
            *gradients, values = context.all_reduce("sum", [*gradients, values])
        norm = tf.linalg.global_norm(gradients)
        usable = tf.math.is_finite(norm) & tf.math.is_finite(values[0])
        factor = tf.minimum(1.0, settings.clip / tf.maximum(norm, 1e-30))
        # These gradients are already summed over replicas. Keras sums them again, IVON does not.
        gradients = [tf.where(usable, gradient * factor, 0.0) for gradient in gradients]
        for group in optimizers:
            own, gradients = gradients[: len(group.variables)], gradients[len(group.variables) :]
            divisor = 1 if isinstance(group.optimizer, Ivon) else replicas
            group.optimizer.apply([gradient / divisor for gradient in own], group.variables)
        return tf.concat([values, [norm]], 0)

    # One graph for each size of a batch, and not for any size: TensorFlow optimises graphs of fixed and of free sizes
    # differently, so the last digits would depend on which sizes this process has met before.
    @tf.function(reduce_retracing=False, autograph=False)
    def run_replicas(batch: dict[str, Any], step: tf.Tensor) -> tf.Tensor:
        values = strategy.run(run_replica, (batch, step))
        return strategy.experimental_local_results(values)[0]

    def train_step(batch: dict[str, Any], step: int) -> StepResult:
        values = run_replicas(split_batch(strategy, batch), tf.constant(step, tf.int32))
        loss, kl, *terms, norm = values.numpy().tolist()
        return StepResult(loss, kl, norm, dict(zip(names, terms, strict=True)))

    return train_step
