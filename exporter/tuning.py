"""Moves the noise of draws so that their mean and their spread are those of all draws.

Only the noise of the final layers moves, those that nothing with weights follows. What they read is computed once per
draw, so that a step costs little; their noise is small, so that a bundle holds it. It moves by gradient steps (Adam:
Kingma and Ba 2015) on many images at once; a penalty keeps the mean square of each draw's noise, as chance left it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from probrt.exporter.bank_errors import Summary
from probrt.exporter.draw_pool import thin_positions
from probrt.trainer.model import Model
from probrt.trainer.novelty.stages import final_inputs
from probrt.trainer.variational.handlers import NoiseHandler, use_handler
from probrt.trainer.variational.random_weight import RandomWeight, find_random_weights, make_noise

# Images per step, and per pass that computes what the final layers read.
_BATCH, _PASS = 64, 128
_RATE = 0.1
# What a mean square distance from the first noise costs, beside squared errors in units of one draw's.
_DISTANCE = 0.02

Noise = dict[int, npt.NDArray[np.float32]]
"""By weight id, [draws, *noise_shape]."""


@dataclass(frozen=True)
class FinalLayers:
    """The network cut before its final layers.

    before: images → what they read, a list. final: from that to each head's channels.
    """

    model: Model
    before: keras.Model
    final: keras.Model

    @cached_property
    def weights(self) -> list[RandomWeight]:
        """The random weights of the final layers that are made from normal noise."""
        return [weight for weight in find_random_weights(self.final) if weight.posterior.noise == "normal"]

    @property
    def size(self) -> int:
        """The number of noise values of one draw that may move."""
        return sum(int(np.prod(weight.posterior.noise_shape(weight.shape))) for weight in self.weights)

    def count_read(self, image: npt.NDArray[np.float32]) -> int:
        """Returns how many values the final layers read of one image, [1, *input.shape]."""
        return sum(int(tf.size(part)) for part in self.read(image, self.make_noise(0, [0])))

    def make_noise(self, seed: int, indices: Sequence[int]) -> dict[int, tf.Tensor]:
        """Returns the noise of all the network's random weights, by weight id [draws, *noise_shape]."""
        return make_noise(find_random_weights(self.model.network), seed, tf.constant(indices, tf.int32))

    def read(self, images: npt.NDArray[np.float32], noise: Mapping[int, tf.Tensor]) -> list[tf.Tensor]:
        """Returns what the final layers read under each draw, each [images, draws, …]."""
        compute = tf.function(self._read_batch, autograph=False, reduce_retracing=True)
        batches = [compute(images[first : first + _PASS], noise) for first in range(0, len(images), _PASS)]
        return [tf.concat(parts, 0) for parts in zip(*batches, strict=True)]

    def _read_batch(self, images: tf.Tensor, noise: Mapping[int, tf.Tensor]) -> list[tf.Tensor]:
        answers = []
        for draw in range(next(iter(noise.values())).shape[0]):
            with use_handler(NoiseHandler({id: values[draw] for id, values in noise.items()})):
                answers.append(tf.nest.flatten(self.before(images, training=False)))
        return [tf.stack(parts, 1) for parts in zip(*answers, strict=True)]

    def answer(self, features: list[tf.Tensor], noise: Mapping[int, tf.Tensor]) -> dict[str, tuple[Any, Any]]:
        """Returns mean and aleatoric uncertainty of each head, averaged over draws, and its epistemic uncertainty.

        features: [batch, draws, …]; noise: [draws, *noise_shape]. Of maps only some entries.
        """
        answers = []
        for draw in range(features[0].shape[1]):
            with use_handler(NoiseHandler({id: values[draw] for id, values in noise.items()})):
                channels = self.final([part[:, draw] for part in features], training=False)
            channels = {name: tf.cast(values, tf.float32) for name, values in channels.items()}
            answers.append(self.model.calibrated_moments(channels))
        summaries = {}
        for head in self.model.heads:
            sides = len(self.model.positions(head))
            means = tf.stack([thin_positions(answer[head.name].mean, sides) for answer in answers])
            aleatoric = tf.stack([thin_positions(answer[head.name].aleatoric, sides) for answer in answers])
            mean = tf.reduce_mean(means, 0)
            average = functools.partial(tf.reduce_mean, tf.square(means - mean), 0)
            _, epistemic = head.split_uncertainty(mean, tf.reduce_mean(aleatoric, 0), average)
            summaries[head.name] = mean, epistemic
        return summaries


def cut_final_layers(model: Model) -> FinalLayers | None:
    """Cuts a network before its final layers; None where they read the images themselves."""
    inputs = final_inputs(model.network)
    if any(tensor is image for tensor in inputs for image in model.network.inputs):
        return None
    return FinalLayers(model, keras.Model(model.network.input, inputs), keras.Model(inputs, model.network.output))


@dataclass(frozen=True)
class Target:
    """What some draws together are to answer: mean and epistemic uncertainty of each head on some images.

    units: by head, in what the errors of mean and spread count: the deviation between draws, the size of the spread.
    """

    images: npt.NDArray[np.float32]
    summaries: dict[str, Summary]
    units: dict[str, tuple[float, float]]


def tune_draws(layers: FinalLayers, target: Target, noise: Mapping[int, tf.Tensor], steps: int) -> Noise:
    """Returns the moved noise of the final layers' weights; noise: that of all weights, [draws, *noise_shape]."""
    features = layers.read(target.images, noise)
    fixed = {weight.id: noise[weight.id] for weight in find_random_weights(layers.final)}
    moving = {weight.id: tf.Variable(noise[weight.id]) for weight in layers.weights}
    squares = {id: _mean_square(fixed[id]) for id in moving}
    targets = {name: [tf.constant(part, tf.float32) for part in parts] for name, parts in target.summaries.items()}
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(_RATE, steps), beta_2=0.99)
    optimizer.build(list(moving.values()))

    def measure(rows: tf.Tensor) -> tf.Tensor:
        answers = layers.answer([tf.gather(part, rows) for part in features], fixed | moving)
        loss = tf.add_n([tf.reduce_mean(tf.square(_mean_square(moving[id]) - squares[id])) for id in moving])
        loss += _DISTANCE * tf.add_n([tf.reduce_mean(tf.square(moving[id] - fixed[id])) for id in moving])
        for name, parts in answers.items():
            for part, wanted, unit in zip(parts, targets[name], target.units[name], strict=True):
                loss += tf.reduce_mean(tf.square((part - tf.gather(wanted, rows)) / unit)) / len(targets)
        return loss

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.int32)])
    def step(rows: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = measure(rows)
        variables = list(moving.values())
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    for rows in _list_batches(len(target.images), steps):
        step(rows)
    return {id: variable.numpy() for id, variable in moving.items()}


def _mean_square(noise: tf.Tensor) -> tf.Tensor:
    """Returns the mean square of each draw's noise, [draws]."""
    return tf.reduce_mean(tf.square(noise), axis=list(range(1, len(noise.shape))))


def _list_batches(images: int, steps: int) -> list[tf.Tensor]:
    """Returns the rows of each step; each image comes once before any comes again."""
    random, size = np.random.default_rng(1), min(_BATCH, images)
    order = np.concatenate([random.permutation(images) for _ in range(-(-steps * size // images) + 1)])
    return [tf.constant(order[step * size : (step + 1) * size], tf.int32) for step in range(steps)]
