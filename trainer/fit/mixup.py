"""Mixup: each training image is mixed with another of its batch, and so is what it is fitted to (Zhang et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from probrt.runtime.errors import ConfigError
from probrt.trainer.config.settings import FitSettings
from probrt.trainer.fit.objective import Objective
from probrt.trainer.heads import AnyHead


def check_mixup(settings: FitSettings, heads: Sequence[AnyHead]) -> None:
    """Raises ConfigError for mixup where a head has other targets: no image is half here and half there."""
    for head in heads:
        if settings.mixup and (head.kind == "real" or head.per_position):
            raise ConfigError(f"fit.mixup: only for classes of whole images, and {head.name} is none; leave it out")


def mix_batches(batches: tf.data.Dataset, concentration: float, *, seed: int, steps: range) -> tf.data.Dataset:
    """Mixes the images of each batch with those of the same batch in reverse order.

    Adds `partners`, the targets of the other image, and `share`, that of the own image, [batch], from 0.5 to 1: the
    larger of two shares from Beta(concentration, concentration). They depend on seed and step alone.
    """

    def mix(step: tf.Tensor, batch: dict[str, Any]) -> dict[str, Any]:
        images = batch["images"]
        key = tf.stack([seed, tf.cast(step, tf.int32)]) + 7
        # Two gammas give a Beta share. In logarithms, because small concentrations underflow: log G(a) is
        # log G(a + 1) + log(uniform) / a.
        rows = tf.shape(images)[0]
        gammas = tf.random.stateless_gamma([2, rows], key, alpha=concentration + 1.0)
        uniforms = tf.random.stateless_uniform([2, rows], key + 1, minval=1e-7)
        logs = tf.math.log(gammas) + tf.math.log(uniforms) / concentration
        share = tf.sigmoid(tf.abs(logs[0] - logs[1]))
        own = tf.reshape(share, [-1] + [1] * (len(images.shape) - 1))
        mixed = own * images + (1.0 - own) * tf.reverse(images, [0])
        partners = {name: tf.reverse(target, [0]) for name, target in batch["targets"].items()}
        return {**batch, "images": mixed, "partners": partners, "share": share}

    numbers = tf.data.Dataset.range(steps.start, steps.stop)
    return tf.data.Dataset.zip((numbers, batches)).map(mix, num_parallel_calls=2, deterministic=True).prefetch(4)


def mixed_log_likelihoods(
    objective: Objective, channels: dict[str, tf.Tensor], batch: dict[str, Any]
) -> dict[str, tf.Tensor]:
    """Returns each head's log-likelihood, [batch]; of a mixed batch those of both targets, weighted by their shares."""
    log_likelihoods = objective.log_likelihoods(channels, batch["targets"])
    if "partners" not in batch:
        return log_likelihoods
    others = objective.log_likelihoods(channels, batch["partners"])
    share = batch["share"]
    return {name: share * value + (1.0 - share) * others[name] for name, value in log_likelihoods.items()}
