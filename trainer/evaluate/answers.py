"""Answers for a whole split: moments, log-likelihoods and predictive samples, as arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from probrt.trainer import data
from probrt.trainer.data import Batch, Examples
from probrt.trainer.heads import AnyHead
from probrt.trainer.heads.moments import QUANTITIES, combine_moments
from probrt.trainer.model import Model, map_draws
from probrt.trainer.variational.handlers import MeanHandler, use_handler

_SAMPLES = 512
# Keeps the seed of samples of the likelihood apart from the seed of draws.
SEED_OFFSET = 1_000_003


@dataclass(frozen=True)
class Answers:
    """One head's answers for n examples.

    mean, total, aleatoric, epistemic: as in a bundle. nll: -log of the draws' average likelihood, in nats, averaged
    over an example's positions, [n]; NaN where the target is missing. samples: of the predictive distribution,
    [n, samples, outputs], for pooled real-valued heads. uncertainties: the names of those that the model knows; without
    random weights there is no epistemic part, and the aleatoric one is all of it.
    """

    mean: np.ndarray
    total: np.ndarray
    aleatoric: np.ndarray
    epistemic: np.ndarray
    nll: np.ndarray
    samples: np.ndarray | None = None
    uncertainties: tuple[str, ...] = ("total", "aleatoric", "epistemic")

    def rows(self, rows: np.ndarray) -> Answers:
        """Returns the answers for some of the examples."""
        return Answers(
            mean=self.mean[rows],
            total=self.total[rows],
            aleatoric=self.aleatoric[rows],
            epistemic=self.epistemic[rows],
            nll=self.nll[rows],
            samples=None if self.samples is None else self.samples[rows],
            uncertainties=self.uncertainties,
        )


@dataclass(frozen=True)
class NoveltyValues:
    """The novelty of n examples: score and p-value, [n]."""

    score: np.ndarray
    p_value: np.ndarray


def compute_novelty(model: Model, examples: Examples, batch: int = 64) -> NoveltyValues | None:
    """Computes the novelty of examples at the posterior mean; None if the model has none."""
    if model.novelty is None:
        return None
    model = model.without_novelty_map()

    @tf.function(reduce_retracing=True, autograph=False)
    def answer(images: tf.Tensor) -> dict[str, tf.Tensor]:
        features = model.shared_features(images)
        with use_handler(MeanHandler()):
            return model.novelty_from(features)

    parts = [answer(part["images"]) for part in data.evaluation_batches(examples, batch)]
    return NoveltyValues(*(np.concatenate([part[name].numpy() for part in parts]) for name in ("score", "p_value")))


def compute_answers(
    model: Model,
    examples: Examples,
    *,
    seed: int,
    draws: int = 32,
    batch: int = 64,
    targets: bool = True,
    on_images: Callable[[int], None] = lambda count: None,
) -> dict[str, Answers]:
    """Computes each head's answers over `draws` draws of a seed; without `targets` leaves out likelihoods and samples.

    on_images: is called with the number of images of each batch.
    """
    parts: dict[str, list[Answers]] = {head.name: [] for head in model.heads}
    batches = iterate_answers(
        model, examples, seed=seed, draws=draws, batch=batch, targets=targets, on_images=on_images
    )
    for answers in batches:
        for head, values in answers.items():
            parts[head].append(values)
    return {head: _join_answers(values) for head, values in parts.items()}


def iterate_answers(
    model: Model,
    examples: Examples,
    *,
    seed: int,
    draws: int = 32,
    batch: int = 64,
    targets: bool = True,
    on_images: Callable[[int], None] = lambda count: None,
) -> Iterator[dict[str, Answers]]:
    """Yields each head's answers batch by batch; without `targets` leaves out likelihoods and samples."""
    samples_per_draw = max(1, _SAMPLES // draws)

    @tf.function(reduce_retracing=True, autograph=False)
    def answer(part: Batch, index: tf.Tensor) -> dict[str, dict[str, tf.Tensor]]:
        handlers = model.draw_handlers(seed, tf.range(draws), draws)
        channels = map_draws(model.shared_features(part["images"]), handlers, model.channels_from)
        answers = {}
        for head in model.heads:
            calibrated = [model.calibrate(head, draw[head.name]) for draw in channels]
            quantities = combine_moments(head, [head.moments(values) for values in calibrated])
            values = {name: quantities[name] for name in QUANTITIES}
            if targets:
                values["nll"] = _nll(head, calibrated, part["targets"][head.name])
                if head.needs_samples and not head.per_position:
                    random = tf.stack([seed + SEED_OFFSET, index])
                    values["samples"] = _sample(head, calibrated, samples_per_draw, random)
            answers[head.name] = values
        return answers

    known = Answers.uncertainties if model.weights else ("total",)
    for index, part in enumerate(data.evaluation_batches(examples, batch)):
        count = len(part["images"])
        yield {
            head: Answers(
                **{"nll": np.full(count, np.nan)} | {name: value.numpy() for name, value in values.items()},
                uncertainties=known,
            )
            for head, values in answer(part, tf.constant(index)).items()
        }
        on_images(count)


def _join_answers(parts: Sequence[Answers]) -> Answers:
    """Joins the answers of batches, in their order."""

    def join(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    samples = None if parts[0].samples is None else join("samples")
    arrays = {name: join(name) for name in (*QUANTITIES, "nll")}
    return Answers(**arrays, samples=samples, uncertainties=parts[0].uncertainties)


def _nll(head: AnyHead, draws: list[tf.Tensor], target: tf.Tensor) -> tf.Tensor:
    """-log mean over draws of the likelihood, averaged over the known positions, [batch]; NaN without any."""
    log_probs = tf.stack([head.log_prob_per_position(channels, target) for channels in draws])
    average = tf.reduce_logsumexp(log_probs, axis=0) - tf.math.log(float(len(draws)))
    known = tf.cast(head.is_known(target), tf.float32)
    axes = list(range(1, len(average.shape)))
    count = tf.reduce_sum(known, axes)
    return tf.where(count > 0, -tf.reduce_sum(average * known, axes) / tf.maximum(count, 1.0), np.nan)


def _sample(head: AnyHead, draws: list[tf.Tensor], count: int, key: tf.Tensor) -> tf.Tensor:
    """Draws `count` samples of every draw's likelihood, [batch, draws · count, outputs]."""
    samples = [
        head.distribution(channels).sample(count, seed=key + tf.constant([0, index * 7919]))
        for index, channels in enumerate(draws)
    ]
    return tf.transpose(tf.concat(samples, axis=0), [1, 0, 2])
