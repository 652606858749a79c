"""One step of gradient descent on the negative evidence lower bound, on one device or several.

The loss per example is -log p(y | x, w) summed over heads, averaged over `draws` weight draws, plus
kl_weight KL(posterior || prior) / N (Blundell et al. 2015, with the KL spread over the N examples). With several
replicas each has its own rows of the batch and the same draw; the KL is shared out among them, so it counts once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from probrt.trainer.config.settings import FitSettings
from probrt.trainer.fit.distribute import shared
from probrt.trainer.fit.objective import Objective
from probrt.trainer.model import Model
from probrt.trainer.variational.estimators import TrainingHandler
from probrt.trainer.variational.handlers import use_handler


@dataclass(frozen=True)
class Stepped:
    """What a step gave: loss and log-likelihood per example and the KL, in nats; the gradient's norm, unclipped."""

    loss: float
    kl: float
    norm: float
    log_likelihood: dict[str, float]

    @property
    def finite(self) -> bool:
        """Whether the step could be used."""
        return bool(np.isfinite([self.loss, self.norm]).all())


@dataclass(frozen=True)
class Group:
    """Variables that one optimizer moves."""

    optimizer: keras.optimizers.Optimizer
    variables: list[keras.Variable]


_OPTIMIZERS: dict[str, type[keras.optimizers.Optimizer]] = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
}


def groups(model: Model, objective: Objective, settings: FitSettings, steps: int) -> list[Group]:
    """The optimizers of a fit, built, with the variables of each; together they hold every trained variable once.

    A head's own layers get a group of their own where it asks for another rate or optimizer.
    """
    apart, found = set(), []
    for head in model.heads:
        if head.own is not None and (head.own.optimizer or head.own.learning_rate != 1):
            variables = model.head_variables(head)
            apart |= {id(variable) for variable in variables}
            kind = _OPTIMIZERS[head.own.optimizer or "adam"]
            found.append(Group(kind(schedule(settings, steps, head.own.learning_rate)), variables))
    rest = [variable for variable in trained(model, objective) if id(variable) not in apart]
    found.insert(0, Group(keras.optimizers.Adam(schedule(settings, steps)), rest))
    found = [group for group in found if group.variables]
    for group in found:
        group.optimizer.build(group.variables)
    return found


def trained(model: Model, objective: Objective) -> list[keras.Variable]:
    """Every variable that fitting moves."""
    return [*model.network.trainable_variables, *objective.variables]


def schedule(settings: FitSettings, steps: int, factor: float = 1.0) -> keras.optimizers.schedules.LearningRateSchedule:
    """From 0 to the learning rate over the warm-up, then down to 0 along a cosine; all times a factor."""
    warmup = round(settings.warmup * steps)
    highest = settings.learning_rate * factor
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else highest,
        warmup_target=highest if warmup else None,
        warmup_steps=warmup,
        decay_steps=max(1, steps - warmup),
    )


def stepper(
    model: Model,
    objective: Objective,
    optimizers: list[Group],
    settings: FitSettings,
    count: int,
    steps: int,
    seed: int,
) -> Callable[[dict, int], Stepped]:
    """A function of a batch {"images", "targets"} and the step's number that moves the variables once.

    count: training examples, N. A step whose loss or gradient is not finite moves no variable by its gradient.
    """
    strategy = tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    variables = [variable.value for group in optimizers for variable in group.variables]
    names = [head.name for head in model.heads]

    def on_replica(one: dict, step: tf.Tensor) -> tf.Tensor:
        size = one["count"]
        with tf.GradientTape() as tape:
            loss = kl = tf.constant(0.0)
            terms = tf.zeros(len(names))
            for draw in range(settings.draws):
                with use_handler(TrainingHandler(seed, step * settings.draws + draw, one["first_row"])) as handler:
                    channels = model.channels(one["images"], training=True)
                    each = objective.terms(channels, one["targets"])
                    loss += tf.reduce_sum(objective.loss(each)) / (size * settings.draws)
                    terms += tf.stack([tf.reduce_sum(each[name]) for name in names]) / (size * settings.draws)
                    kl += divergence(model, handler) / settings.draws
            loss += (objective.penalty() + risen(settings, step, steps) * kl / count) / replicas
        gradients = tape.gradient(loss, variables, unconnected_gradients="zero")
        values = tf.concat([tf.stack([loss, kl / replicas]), terms], 0)
        if replicas > 1:
            context = tf.distribute.get_replica_context()
            *gradients, values = context.all_reduce("sum", [*gradients, values])
        norm = tf.linalg.global_norm(gradients)
        usable = tf.math.is_finite(norm) & tf.math.is_finite(values[0])
        factor = tf.minimum(1.0, settings.clip / tf.maximum(norm, 1e-30))
        # Keras adds up the replicas' gradients once more, when they are already the sum.
        gradients = [tf.where(usable, gradient * factor, 0.0) / replicas for gradient in gradients]
        for group in optimizers:
            own, gradients = gradients[: len(group.variables)], gradients[len(group.variables) :]
            group.optimizer.apply(own, group.variables)
        return tf.concat([values, [norm]], 0)

    @tf.function(reduce_retracing=True, autograph=False)
    def on_all(one: dict, step: tf.Tensor) -> tf.Tensor:
        values = strategy.run(on_replica, (one, step))
        return strategy.experimental_local_results(values)[0]

    def stepped(one: dict, step: int) -> Stepped:
        loss, kl, *terms, norm = on_all(shared(strategy, one), tf.constant(step, tf.int32)).numpy().tolist()
        return Stepped(loss, kl, norm, dict(zip(names, terms, strict=True)))

    return stepped


def divergence(model: Model, handler: TrainingHandler) -> tf.Tensor:
    """KL(posterior || prior) of all weights, in nats, on the handler's draw where it is not closed."""
    return tf.add_n([handler.kl(weight) for weight in model.weights] or [tf.constant(0.0)])


def risen(settings: FitSettings, step: tf.Tensor, steps: int) -> tf.Tensor:
    """The weight of the KL at a step."""
    part = tf.cast(step + 1, tf.float32) / max(1.0, settings.kl_warmup * steps)
    return settings.kl_weight * tf.minimum(1.0, part)
