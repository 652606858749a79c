"""What a fit measures on a split after each epoch: the metric of each head, and the evidence lower bound."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from probrt.trainer import data
from probrt.trainer.config.settings import FitSettings
from probrt.trainer.data import Examples
from probrt.trainer.fit.objective import Objective, total_kl
from probrt.trainer.model import Model
from probrt.trainer.variational.estimators import TrainingHandler
from probrt.trainer.variational.handlers import DrawHandler, MeanHandler, use_handler

# Two draws are enough for a mean over hundreds of examples, and cheap enough for every epoch.
_ELBO_DRAWS = 2
_BATCH = 256


Scores = dict[str, np.ndarray]


def make_scores(model: Model) -> Callable[[Examples], Scores]:
    """Returns a function that computes each head's metric on a split, at the posterior mean.

    The scores are those of each example that has a target, in order, [count].
    """

    @tf.function(reduce_retracing=True, autograph=False)
    def score_batch(batch: dict[str, Any]) -> dict[str, tf.Tensor]:
        with use_handler(MeanHandler()):
            moments = model.moments(batch["images"])
        return {head.name: head.metric(moments[head.name].mean, batch["targets"][head.name]) for head in model.heads}

    def compute_scores(examples: Examples) -> Scores:
        parts: dict[str, list[np.ndarray]] = {head.name: [] for head in model.heads}
        for batch in data.evaluation_batches(examples, _BATCH):
            for name, scores in score_batch(batch).items():
                parts[name].append(scores.numpy())
        return {name: np.concatenate(scores) for name, scores in parts.items()}

    return compute_scores


def average_scores(scores: Scores) -> dict[str, float]:
    """Returns each head's average score; NaN where no example has a target."""
    return {name: float(np.mean(values)) if len(values) else math.nan for name, values in scores.items()}


def make_metrics(model: Model) -> Callable[[Examples], dict[str, float]]:
    """Returns a function that computes each head's average metric on a split, at the posterior mean."""
    compute_scores = make_scores(model)
    return lambda examples: average_scores(compute_scores(examples))


def make_elbo(
    model: Model, objective: Objective, settings: FitSettings, *, train_count: int, seed: int
) -> Callable[[Examples], float]:
    """Returns a function that computes the evidence lower bound of a split, in nats per example.

    train_count: number of training examples; the KL is divided by it.
    """

    @tf.function(reduce_retracing=True, autograph=False)
    def sum_losses(batch: dict[str, Any], index: tf.Tensor) -> tf.Tensor:
        with use_handler(DrawHandler(seed, index)):
            log_likelihoods = objective.log_likelihoods(model.channels(batch["images"]), batch["targets"])
        return tf.reduce_sum(objective.loss(log_likelihoods))

    @tf.function(autograph=False)
    def compute_kl() -> tf.Tensor:
        handler = TrainingHandler(seed, 0)
        with use_handler(handler):
            return total_kl(model, handler)

    def compute_elbo(examples: Examples) -> float:
        loss = 0.0
        for batch in data.evaluation_batches(examples, _BATCH):
            loss += sum(float(sum_losses(batch, tf.constant(index))) for index in range(_ELBO_DRAWS)) / _ELBO_DRAWS
        return -loss / len(examples) - settings.kl_factor * float(compute_kl()) / train_count

    return compute_elbo
