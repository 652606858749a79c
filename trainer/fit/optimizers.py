"""The optimizers of a fit, and the schedules of the learning rate, the KL weight and the noise."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import tensorflow as tf

from probrt.trainer.config.settings import FitSettings
from probrt.trainer.fit.ivon import Ivon, check_ivon, find_ivon_weights
from probrt.trainer.fit.objective import Objective
from probrt.trainer.model import Model


@dataclass(frozen=True)
class OptimizerGroup:
    """An optimizer and the variables that it updates."""

    optimizer: keras.optimizers.Optimizer | Ivon
    variables: list[keras.Variable]


_OPTIMIZERS: dict[str, type[keras.optimizers.Optimizer]] = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
}


def make_optimizers(
    model: Model, objective: Objective, settings: FitSettings, steps: int, train_count: int
) -> list[OptimizerGroup]:
    """Returns the built optimizers of a fit of `steps` steps; each trained variable is in exactly one group.

    The layers of a head have a group of their own if the head sets another optimizer or learning rate, and the kernels
    with the estimator "ivon" have one. train_count: number of training examples.
    """
    groups: list[OptimizerGroup] = []
    assigned: set[int] = set()
    if ivon_weights := find_ivon_weights(model):
        check_ivon(model, settings)
        rate = learning_rate_schedule(settings, steps)
        pairs = [weight.parameters[name] for weight in ivon_weights for name in ("loc", "rho")]
        assigned = {id(variable) for variable in pairs}
        groups.append(OptimizerGroup(Ivon(ivon_weights, rate, settings, count=train_count, steps=steps), pairs))
    for head in model.heads:
        if head.own is not None and (head.own.optimizer or head.own.learning_rate != 1):
            variables = model.head_variables(head)
            assigned |= {id(variable) for variable in variables}
            optimizer_class = _OPTIMIZERS[head.own.optimizer or "adam"]
            rate = learning_rate_schedule(settings, steps, factor=head.own.learning_rate)
            groups.append(OptimizerGroup(optimizer_class(rate), variables))
    others = [variable for variable in trained_variables(model, objective) if id(variable) not in assigned]
    groups.insert(0, OptimizerGroup(keras.optimizers.Adam(learning_rate_schedule(settings, steps)), others))
    groups = [group for group in groups if group.variables]
    for group in groups:
        group.optimizer.build(group.variables)
    return groups


def trained_variables(model: Model, objective: Objective) -> list[keras.Variable]:
    """Returns every variable that a fit updates."""
    return [*model.network.trainable_variables, *objective.variables]


def learning_rate_schedule(
    settings: FitSettings, steps: int, factor: float = 1.0
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Returns a schedule that rises from 0 to `factor` times the learning rate, then falls to 0 along a cosine."""
    warmup_steps = round(settings.warmup * steps)
    highest = settings.learning_rate * factor
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup_steps else highest,
        warmup_target=highest if warmup_steps else None,
        warmup_steps=warmup_steps,
        decay_steps=max(1, steps - warmup_steps),
    )


def kl_weight_at(step: tf.Tensor, settings: FitSettings, steps: int) -> tf.Tensor:
    """Returns the weight of the KL at a step: it rises linearly to `kl_weight` over the KL warm-up."""
    fraction = tf.cast(step + 1, tf.float32) / max(1.0, settings.kl_warmup * steps)
    return settings.kl_factor * tf.minimum(1.0, fraction)


def spread_at(step: tf.Tensor, settings: FitSettings, steps: int) -> tf.Tensor | float:
    """Returns the spread of the draws at a step, up to 1: it rises linearly over the warm-up of the noise."""
    if settings.noise_warmup == 0:
        return 1.0
    return tf.minimum(1.0, tf.cast(step + 1, tf.float32) / max(1.0, settings.noise_warmup * steps))
