"""Calibration on the validation split: one temperature or scale per head, applied to every draw.

The value is the one that gives the split the highest predictive log-likelihood, the likelihood being averaged over
draws as it is when predicting (Guo et al. 2017 for temperature; Levi et al. 2022 for scale), under a log-normal prior
around 1: a small split without a mistake is no reason to be sure of everything. Then, with that in place, conformal
thresholds and the risk-coverage curve come from the same split: calibration has fitted one number per head to it.
"""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import tensorflow as tf

from probrt.runtime.bundle.manifest import Calibration
from probrt.runtime.calibration.risk import fit_curve
from probrt.trainer import data
from probrt.trainer.calibration.risk import example_errors
from probrt.trainer.calibration.thresholds import fit_thresholds
from probrt.trainer.data import Batch, Examples
from probrt.trainer.heads import AnyHead
from probrt.trainer.model import Model, compile_answer, map_draws

# A grid in steps of 5 %: finer than what a few hundred examples can tell apart.
GRID = np.exp(np.arange(-30, 31) * 0.05)
# Standard deviation of the logarithm under the prior: corrections by more than a factor of e are unlikely.
LOG_DEVIATION = 0.5


def calibrate_model(model: Model, validation: Examples, seed: int, draws: int = 16, batch: int = 128) -> Model:
    """Returns the model with each head's calibration fitted to the validation split.

    Fits the temperature or scale, then thresholds and a risk curve of the predictive mean over `draws` draws.
    """
    totals = {head.name: np.zeros(len(GRID)) for head in model.heads}

    @tf.function(reduce_retracing=True, autograph=False)
    def score_grid(examples: Batch) -> dict[str, tf.Tensor]:
        handlers = model.draw_handlers(seed, tf.range(draws), draws)
        channels = map_draws(model.shared_features(examples["images"]), handlers, model.channels_from)
        return {
            head.name: _log_likelihood(head, [draw[head.name] for draw in channels], examples["targets"][head.name])
            for head in model.heads
        }

    for examples in data.evaluation_batches(validation, batch):
        for name, scores in score_grid(examples).items():
            totals[name] += scores.numpy()
    fitted = tuple(head.calibration_record(_likeliest(totals[head.name])) for head in model.heads)
    model = dataclasses.replace(model, calibration=fitted)
    answers = predict_examples(model, validation, seed, draws, batch)
    return dataclasses.replace(
        model,
        calibration=tuple(
            _add_thresholds(record, head, answers[head.name], validation.targets[head.name])
            for record, head in zip(fitted, model.heads, strict=True)
        ),
    )


def predict_examples(
    model: Model, examples: Examples, seed: int, draws: int = 16, batch: int = 128
) -> dict[str, dict[str, np.ndarray]]:
    """Computes each head's calibrated mean and total over `draws` draws, for all examples, in order."""
    answer = compile_answer(model, seed, draws)
    batches = [answer(part["images"]) for part in data.evaluation_batches(examples, batch)]
    return {
        head.name: {
            quantity: np.concatenate([answers[head.name][quantity].numpy() for answers in batches])
            for quantity in ("mean", "total")
        }
        for head in model.heads
    }


def _add_thresholds(
    record: Calibration, head: AnyHead, answer: dict[str, np.ndarray], target: np.ndarray
) -> Calibration:
    """Returns the record with conformal thresholds and a risk curve of the examples that have a target."""
    known = head.is_known(target).numpy().reshape(len(target), -1).any(axis=1)
    if not known.any():
        return record
    answer, target = {quantity: values[known] for quantity, values in answer.items()}, target[known]
    errors = example_errors(head, answer, target)
    curve = [] if errors is None else fit_curve(*errors)
    return msgspec.structs.replace(record, conformal=fit_thresholds(head, answer, target), risk=curve)


def _log_likelihood(head: AnyHead, draws: list[tf.Tensor], target: tf.Tensor) -> tf.Tensor:
    """Sum over examples and positions of the log of the draws' average likelihood, for each grid value."""
    channels = tf.stack(draws)

    def at_value(value: tf.Tensor) -> tf.Tensor:
        log_probs = head.log_prob_per_position(head.calibrate_channels(channels, value), target)
        return tf.reduce_sum(tf.reduce_logsumexp(log_probs, axis=0))

    return tf.map_fn(at_value, tf.constant(GRID, tf.float32))


def _likeliest(totals: np.ndarray) -> float:
    """The most probable grid value, from the log-likelihood of each."""
    posterior = totals - 0.5 * (np.log(GRID) / LOG_DEVIATION) ** 2
    return float(round(GRID[int(np.argmax(posterior))], 4))
