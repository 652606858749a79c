"""Moves the noise of draws so that their mean and their spread are those of all draws.

Only the noise of the final layers moves, those that nothing with weights follows. What they read is computed once per
draw, so that a step costs little; their noise is small, so that a bundle holds it. It moves by gradient steps (Adam:
Kingma and Ba 2015) on many images at once; a penalty keeps the mean square of each draw's noise, as chance left it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

DrawAnswers = dict[str, tuple[tf.Tensor, tf.Tensor]]
"""By head: mean and aleatoric uncertainty of a draw, or of each of several."""

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

    @property
    def read_vectors(self) -> bool:
        """Whether they read one vector per image, so that they cost little beside the layers before them."""
        return all(side == 1 for tensor in self.before.outputs for side in tensor.shape[1:-1])

    def count_read(self, image: npt.NDArray[np.float32]) -> int:
        """Returns how many values the final layers read of one image, [1, *input.shape]."""
        return sum(int(tf.size(part)) for part in self._read_batch(image, self.make_noise(0, [0])))

    def make_noise(self, seed: int, indices: Sequence[int]) -> dict[int, tf.Tensor]:
        """Returns the noise of all the network's random weights, by weight id [draws, *noise_shape]."""
        return make_noise(find_random_weights(self.model.network), seed, tf.constant(indices, tf.int32))

    def read(self, images: npt.NDArray[np.float32], noise: Mapping[int, tf.Tensor]) -> list[tf.Tensor]:
        """Returns what the final layers read under each draw, each [images, draws, …]."""
        # Every batch has the same size, so that the graph is traced once.
        padded = np.concatenate([images, np.repeat(images[-1:], -len(images) % _PASS, axis=0)])
        batches = [self._compiled_read(padded[first : first + _PASS], noise) for first in range(0, len(padded), _PASS)]
        return [tf.concat(parts, 0)[: len(images)] for parts in zip(*batches, strict=True)]

    @cached_property
    def _compiled_read(self) -> Callable[..., list[tf.Tensor]]:
        compiled: Callable[..., list[tf.Tensor]] = tf.function(self._read_batch, autograph=False)
        return compiled

    def _read_batch(self, images: tf.Tensor, noise: Mapping[int, tf.Tensor]) -> list[tf.Tensor]:
        answers = []
        for draw in range(next(iter(noise.values())).shape[0]):
            with use_handler(NoiseHandler({id: values[draw] for id, values in noise.items()})):
                answers.append(tf.nest.flatten(self.before(images, training=False)))
        return [tf.stack(parts, 1) for parts in zip(*answers, strict=True)]

    def compile_final(self, seed: int, draws: int) -> Callable[[list[tf.Tensor], tf.Tensor], DrawAnswers]:
        """Returns a function of what the final layers read, [images, …], and of an index, int32.

        It evaluates the final layers in draws (seed, index), (seed, index + 1), …: mean and aleatoric uncertainty,
        thinned, by head, [draws, images, …].
        """
        weights = find_random_weights(self.final)

        def evaluate(features: list[tf.Tensor], index: tf.Tensor) -> DrawAnswers:
            noise = make_noise(weights, seed, index + tf.range(draws))
            answers = []
            for draw in range(draws):
                with use_handler(NoiseHandler({id: values[draw] for id, values in noise.items()})):
                    answers.append(self._answer_draw(features))
            return _stack_draws(answers)

        compiled: Callable[[list[tf.Tensor], tf.Tensor], DrawAnswers] = tf.function(evaluate, autograph=False)
        return compiled

    def _answer_draw(self, features: list[tf.Tensor]) -> DrawAnswers:
        """Returns mean and aleatoric uncertainty of each head under the active handler; of maps only some entries."""
        channels = self.final(features, training=False)
        channels = {name: tf.cast(values, tf.float32) for name, values in channels.items()}
        moments = self.model.calibrated_moments(channels)
        sides = {head.name: len(self.model.positions(head)) for head in self.model.heads}
        return {
            name: (thin_positions(moments[name].mean, count), thin_positions(moments[name].aleatoric, count))
            for name, count in sides.items()
        }

    def answer_draws(self, features: list[tf.Tensor], noise: Mapping[int, tf.Tensor]) -> DrawAnswers:
        """Returns mean and aleatoric uncertainty of each head by draw, [draws, batch, …]; of maps only some entries.

        features: [batch, draws, …]; noise: [draws, *noise_shape].
        """
        answers = []
        for draw in range(features[0].shape[1]):
            with use_handler(NoiseHandler({id: values[draw] for id, values in noise.items()})):
                answers.append(self._answer_draw([part[:, draw] for part in features]))
        return _stack_draws(answers)

    def answer(self, features: list[tf.Tensor], noise: Mapping[int, tf.Tensor]) -> dict[str, tuple[Any, Any]]:
        """Returns mean and aleatoric uncertainty of each head, averaged over draws, and its epistemic uncertainty.

        features: [batch, draws, …]; noise: [draws, *noise_shape]. Of maps only some entries.
        """
        summaries, answers = {}, self.answer_draws(features, noise)
        for head in self.model.heads:
            means, aleatoric = answers[head.name]
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
    final = keras.Model(inputs, model.network.output)
    averages = [keras.ops.mean(tensor, list(range(1, len(tensor.shape) - 1)), keepdims=True) for tensor in inputs]
    of_averages = _apply_to_averages(final, averages)
    if of_averages is not None:
        return FinalLayers(model, keras.Model(model.network.input, averages), of_averages)
    return FinalLayers(model, keras.Model(model.network.input, inputs), final)


def _apply_to_averages(final: keras.Model, averages: Sequence[keras.KerasTensor]) -> keras.Model | None:
    """Returns the final layers on averages over positions; None where that changes their answers.

    It changes nothing where each position is weighted alike and the heads average: the features are then as many times
    smaller. Compared on noise, in one draw.
    """
    if all(len(tensor.shape) < 3 for tensor in averages):
        return None
    try:
        inputs = [keras.Input(average.shape[1:], dtype=average.dtype) for average in averages]
        of_averages = keras.models.clone_model(final, input_tensors=inputs, clone_function=lambda layer: layer)
    except ValueError:  # a kernel that is larger than one position
        return None
    random = np.random.default_rng(0)
    features = [
        tf.constant(random.normal(size=[4, *(side or 5 for side in tensor.shape[1:])]), tensor.dtype)
        for tensor in final.inputs
    ]
    means = [tf.reduce_mean(part, list(range(1, len(part.shape) - 1)), keepdims=True) for part in features]
    noise = make_noise(find_random_weights(final), 0, tf.constant([0]))
    with use_handler(NoiseHandler({id: values[0] for id, values in noise.items()})):
        answers, others = final(features, training=False), of_averages(means, training=False)
    for name, values in answers.items():
        if values.shape != others[name].shape or not np.allclose(values, others[name], atol=1e-4):
            return None
    return of_averages


@dataclass(frozen=True)
class Target:
    """What some draws together are to answer: mean and epistemic uncertainty of each head on some images.

    units: by head, in what the errors of mean and spread count: the deviation between draws, the size of the spread.
    """

    images: npt.NDArray[np.float32]
    summaries: dict[str, Summary]
    units: dict[str, tuple[float, float]]


def tune_draws(
    layers: FinalLayers, target: Target, chunks: Iterable[Mapping[int, tf.Tensor]], steps: int
) -> Iterator[Noise]:
    """Yields the moved noise of the final layers' weights for each chunk of draws, all tuned by themselves.

    chunks: the noise of all weights, [draws, *noise_shape], of as many draws each. All take the steps of one graph.
    """
    targets = {name: [tf.constant(part, tf.float32) for part in parts] for name, parts in target.summaries.items()}
    moving: dict[int, tf.Variable] = {}
    rates = keras.optimizers.schedules.CosineDecay(_RATE, steps)
    optimizer = keras.optimizers.Adam(rates, beta_2=0.99)

    def measure(rows: tf.Tensor, features: list[tf.Tensor], start: Mapping[int, tf.Tensor]) -> tf.Tensor:
        answers = layers.answer([tf.gather(part, rows) for part in features], {**start, **moving})
        loss = tf.add_n(
            [tf.reduce_mean(tf.square(_mean_square(moving[id]) - _mean_square(start[id]))) for id in moving]
        )
        loss += _DISTANCE * tf.add_n([tf.reduce_mean(tf.square(moving[id] - start[id])) for id in moving])
        for name, parts in answers.items():
            for part, wanted, unit in zip(parts, targets[name], target.units[name], strict=True):
                loss += tf.reduce_mean(tf.square((part - tf.gather(wanted, rows)) / unit)) / len(targets)
        return loss

    @tf.function(autograph=False)
    def step(rows: tf.Tensor, features: list[tf.Tensor], start: Mapping[int, tf.Tensor]) -> None:
        with tf.GradientTape() as tape:
            loss = measure(rows, features, start)
        variables = list(moving.values())
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    for noise in chunks:
        features = layers.read(target.images, noise)
        start = {weight.id: noise[weight.id] for weight in find_random_weights(layers.final)}
        if moving:
            for variable in optimizer.variables:
                variable.assign(tf.zeros_like(variable))
            for id, variable in moving.items():
                variable.assign(start[id])
        else:
            moving |= {weight.id: tf.Variable(start[weight.id]) for weight in layers.weights}
            optimizer.build(list(moving.values()))
        for rows in _list_batches(len(target.images), steps):
            step(rows, features, start)
        yield {id: variable.numpy() for id, variable in moving.items()}


def _stack_draws(answers: Sequence[DrawAnswers]) -> DrawAnswers:
    return {name: tuple(map(tf.stack, zip(*(answer[name] for answer in answers), strict=True))) for name in answers[0]}


def _mean_square(noise: tf.Tensor) -> tf.Tensor:
    """Returns the mean square of each draw's noise, [draws]."""
    return tf.reduce_mean(tf.square(noise), axis=list(range(1, len(noise.shape))))


def _list_batches(images: int, steps: int) -> list[tf.Tensor]:
    """Returns the rows of each step; each image comes once before any comes again."""
    random, size = np.random.default_rng(1), min(_BATCH, images)
    order = np.concatenate([random.permutation(images) for _ in range(-(-steps * size // images) + 1)])
    return [tf.constant(order[step * size : (step + 1) * size], tf.int32) for step in range(steps)]
