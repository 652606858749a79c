"""What a model says of a split: moments, log-likelihoods and predictive samples, draw by draw, in arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from probrt.trainer import data
from probrt.trainer.data import Examples
from probrt.trainer.heads import AnyHead, moments
from probrt.trainer.heads.moments import combine_moments
from probrt.trainer.model import Model, map_draws

_SAMPLES = 512
SHIFT = 1_000_003  # keeps the seed of samples of the likelihood apart from that of draws


@dataclass(frozen=True)
class Answers:
    """One head's answers for n examples.

    mean, total, aleatoric, epistemic: as in a bundle. nll: -log of the draws' average likelihood, in nats, averaged
    over an example's positions, [n]; NaN where the target is missing. samples: of the predictive distribution,
    [n, samples, outputs], for pooled real-valued heads.
    """

    mean: np.ndarray
    total: np.ndarray
    aleatoric: np.ndarray
    epistemic: np.ndarray
    nll: np.ndarray
    samples: np.ndarray | None = None


def answers(
    model: Model, examples: Examples, seed: int, draws: int = 32, batch: int = 64, targets: bool = True
) -> dict[str, Answers]:
    """Each head's answers over `draws` draws of a seed; without targets the likelihood is left out."""
    each = max(1, _SAMPLES // draws)

    @tf.function(reduce_retracing=True, autograph=False)
    def answered(one: dict, number: tf.Tensor) -> dict[str, dict[str, tf.Tensor]]:
        handlers = model.draw_handlers(seed, tf.range(draws), draws)
        channels = map_draws(model, one["images"], handlers, model.channels_from)
        found = {}
        for head in model.heads:
            calibrated = [model.calibrate(head, draw[head.name]) for draw in channels]
            quantities = combine_moments(head, [head.moments(channels) for channels in calibrated])
            found[head.name] = {name: quantities[name] for name in moments.QUANTITIES}
            if targets:
                found[head.name]["nll"] = _nll(head, calibrated, one["targets"][head.name])
            if head.combine == "variance" and not head.per_position:
                found[head.name]["samples"] = _samples(head, calibrated, each, tf.stack([seed + SHIFT, number]))
        return found

    parts: dict[str, dict[str, list[np.ndarray]]] = {head.name: {} for head in model.heads}
    for number, one in enumerate(data.evaluation_batches(examples, batch)):
        for name, values in answered(one, tf.constant(number)).items():
            for quantity, value in values.items():
                parts[name].setdefault(quantity, []).append(value.numpy())
    found = {}
    for name, values in parts.items():
        arrays = {quantity: np.concatenate(value) for quantity, value in values.items()}
        arrays.setdefault("nll", np.full(len(examples), np.nan))
        found[name] = Answers(**arrays)
    return found


def _nll(head: AnyHead, drawn: list[tf.Tensor], target: tf.Tensor) -> tf.Tensor:
    """-log mean over draws of the likelihood, averaged over the known positions, [batch]; NaN without any."""
    each = tf.stack([head.log_prob_each(channels, target) for channels in drawn])
    average = tf.reduce_logsumexp(each, axis=0) - tf.math.log(float(len(drawn)))
    known = tf.cast(head.known(target), tf.float32)
    axes = list(range(1, len(average.shape)))
    count = tf.reduce_sum(known, axes)
    return tf.where(count > 0, -tf.reduce_sum(average * known, axes) / tf.maximum(count, 1.0), np.nan)


def _samples(head: AnyHead, drawn: list[tf.Tensor], each: int, key: tf.Tensor) -> tf.Tensor:
    """`each` samples of every draw's likelihood, [batch, draws · each, outputs]."""
    made = [
        head.distribution(channels).sample(each, seed=key + tf.constant([0, index * 7919]))
        for index, channels in enumerate(drawn)
    ]
    return tf.transpose(tf.concat(made, axis=0), [1, 0, 2])
