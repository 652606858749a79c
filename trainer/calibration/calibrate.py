"""Calibration on the validation split: one temperature or scale per head, applied to every draw.

The value is the one that gives the split the highest predictive log-likelihood, the likelihood being
averaged over draws as it is when predicting (Guo et al. 2017 for temperature; Levi et al. 2022 for scale),
under a log-normal prior around 1: a small split without a mistake is no reason to be sure of everything.
Then, with that in place, conformal thresholds and the risk-coverage curve from the same split: one fitted
number per head is all that it has seen before.
"""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import tensorflow as tf

from probrt.runtime.bundle.manifest import Calibration
from probrt.trainer import data
from probrt.trainer.calibration import risk
from probrt.trainer.calibration.conformal import conformal
from probrt.trainer.data import Examples
from probrt.trainer.heads import AnyHead
from probrt.trainer.model import Model, map_draws

# A grid in steps of 5 %: finer than what a few hundred examples can tell apart.
GRID = np.exp(np.arange(-30, 31) * 0.05)
# Standard deviation of the logarithm before anything is seen: corrections by more than a factor of e are unlikely.
LOG_DEVIATION = 0.5


def calibrated(model: Model, validation: Examples, seed: int, draws: int = 16, batch: int = 128) -> Model:
    """The model with each head's calibration: the temperature or scale that suits the validation split best,
    and thresholds and a risk curve of the predictive mean over `draws` draws."""
    totals = {head.name: np.zeros(len(GRID)) for head in model.heads}

    @tf.function(reduce_retracing=True, autograph=False)
    def scored(one: dict) -> dict[str, tf.Tensor]:
        handlers = model.draw_handlers(seed, tf.range(draws), draws)
        channels = map_draws(model, one["images"], handlers, model.channels_from)
        return {
            head.name: _log_likelihood(head, [draw[head.name] for draw in channels], one["targets"][head.name])
            for head in model.heads
        }

    for one in data.evaluation_batches(validation, batch):
        for name, score in scored(one).items():
            totals[name] += score.numpy()
    found = tuple(_best(head, totals[head.name]) for head in model.heads)
    model = dataclasses.replace(model, calibration=found)
    answers = predicted(model, validation, seed, draws, batch)
    return dataclasses.replace(
        model,
        calibration=tuple(
            _with_thresholds(one, head, answers[head.name], validation.targets[head.name])
            for one, head in zip(found, model.heads, strict=True)
        ),
    )


def predicted(
    model: Model, examples: Examples, seed: int, draws: int = 16, batch: int = 128
) -> dict[str, dict[str, np.ndarray]]:
    """Each head's calibrated mean and total over `draws` draws, for all examples, in order."""

    @tf.function(reduce_retracing=True, autograph=False)
    def answered(images: tf.Tensor) -> dict[str, dict[str, tf.Tensor]]:
        return model.combine_draws(images, model.draw_handlers(seed, tf.range(draws), draws))

    batches = [answered(one["images"]) for one in data.evaluation_batches(examples, batch)]
    found: dict[str, dict[str, np.ndarray]] = {head.name: {} for head in model.heads}
    for head in model.heads:
        for quantity in ("mean", "total"):
            found[head.name][quantity] = np.concatenate([one[head.name][quantity].numpy() for one in batches])
    return found


def _with_thresholds(one: Calibration, head: AnyHead, answer: dict[str, np.ndarray], target: np.ndarray) -> Calibration:
    known = head.known(tf.convert_to_tensor(target)).numpy().reshape(len(target), -1).any(axis=1)
    if not known.any():
        return one
    answer = {quantity: values[known] for quantity, values in answer.items()}
    one = msgspec.structs.replace(one, conformal=conformal(head, answer, target[known]))
    if head.combine == "entropy":
        uncertainty, wrong = risk.of_examples(head, answer, target[known])
        one = msgspec.structs.replace(one, risk=risk.curve(uncertainty, wrong))
    return one


def _log_likelihood(head: AnyHead, drawn: list[tf.Tensor], target: tf.Tensor) -> tf.Tensor:
    """Sum over examples and positions of the log of the draws' average likelihood, for each grid value."""
    channels = tf.stack(drawn)

    def at(value: tf.Tensor) -> tf.Tensor:
        each = head.log_prob_each(head.calibrated(channels, value, value), target)
        return tf.reduce_sum(tf.reduce_logsumexp(each, axis=0))

    return tf.map_fn(at, tf.constant(GRID, tf.float32))


def _best(head: AnyHead, totals: np.ndarray) -> Calibration:
    """The grid's likeliest value, from the log-likelihood of each."""
    posterior = totals - 0.5 * (np.log(GRID) / LOG_DEVIATION) ** 2
    value = float(round(GRID[int(np.argmax(posterior))], 4))
    if head.calibrates == "nothing":
        return Calibration(head=head.name)
    return Calibration(head=head.name, **{head.calibrates: value})
