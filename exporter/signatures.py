"""The SavedModel's signatures; the Monte Carlo sampling is inside them.

They are stateless: (seed, index) names every draw. A row depends only on itself: a bad row, one with a value that is
not finite or lies outside the input's range, answers NaN and does not affect the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from probrt.exporter.exportable import Exportable
from probrt.exporter.graphs import (
    GraphFunction,
    NamedTensors,
    combine_named,
    compile_function,
    compute_novelty,
    evaluate_mean,
    images_spec,
    index_table,
    name_quantities,
)
from probrt.exporter.pictures import decode_pictures
from probrt.runtime.bundle.manifest import Input, PosteriorRecord
from probrt.trainer.heads import Moments
from probrt.trainer.heads.moments import RunningMoments, add_draw, finish_running, start_running
from probrt.trainer.variational.handlers import MeanHandler, use_handler

Running = Mapping[str, RunningMoments]  # by head


def make_signatures(model: Exportable, posterior: PosteriorRecord | None) -> dict[str, GraphFunction]:
    """Makes the signatures by name; a model without random weights has one pass and no signature that samples."""
    mean = make_mean_signature(model)
    if posterior is None:
        signatures = {"serving_default": make_mean_signature(model), "mean": mean}
        default = mean
    else:
        sampling = SamplingSignatures(model, posterior)
        default = sampling.serving_default()
        signatures = {
            "serving_default": default,
            "sample": sampling.sample(),
            "draws": sampling.draws(),
            "mean": mean,
        }
    if is_encodable(model.input):
        signatures["encoded"] = make_encoded_signature(model, default)
    return signatures


def make_mean_signature(model: Exportable) -> GraphFunction:
    """Makes the signature of one pass at the posterior mean."""

    def mean(images: tf.Tensor) -> NamedTensors:
        rows, images = tf.shape(images)[0], _pad_empty(_ensure_sides(model, images))
        good = _good_rows(images, model.input)
        with use_handler(MeanHandler()):
            outputs = evaluate_mean(model, _clear_rows(images, good))
        return _first_rows(_set_nan_rows(outputs, good), rows)

    return compile_function(mean, [images_spec(model)])


def make_encoded_signature(model: Exportable, default: GraphFunction) -> GraphFunction:
    """Makes the signature that decodes and resizes PNG or JPEG bytes and calls `default`; unreadable ones are NaN."""

    def encoded(image_bytes: tf.Tensor) -> NamedTensors:
        return default(decode_pictures(image_bytes, model.input))

    return compile_function(encoded, [tf.TensorSpec([None], tf.string, name="image_bytes")])


@dataclass(frozen=True)
class SamplingSignatures:
    """The signatures of one model and its bank that give more than one draw."""

    model: Exportable
    posterior: PosteriorRecord

    def serving_default(self) -> GraphFunction:
        """Makes the signature of all heads over the bundle's draws and seed, unrolled: the fastest plain form."""
        bank = self.posterior.order[: self.posterior.samples]

        def serving_default(images: tf.Tensor) -> NamedTensors:
            rows, images = tf.shape(images)[0], _pad_empty(_ensure_sides(self.model, images))
            good = _good_rows(images, self.model.input)
            handlers = self.model.draw_handlers(self.posterior.seed, bank, len(bank))
            outputs = combine_named(self.model, handlers, _clear_rows(images, good), MeanHandler())
            return _first_rows(_set_nan_rows(outputs, good), rows)

        return compile_function(serving_default, [images_spec(self.model)])

    def sample(self) -> GraphFunction:
        """Makes the signature of all heads for any number of draws and any seed, per row."""

        def sample(images: tf.Tensor, num_samples: tf.Tensor, seed: tf.Tensor) -> NamedTensors:
            rows = tf.shape(images)[0]
            images = _pad_empty(_ensure_sides(self.model, images))
            counts, seeds = _expand_to_rows(num_samples, images), _expand_to_rows(seed, images)
            good = _good_rows(images, self.model.input) & (seeds >= 0)
            good &= (counts >= 1) & (counts <= self.posterior.max_samples)
            features = self.model.shared_features(_clear_rows(images, good))
            outputs = self._combine_by_seed(features, tf.where(good, counts, 0), tf.where(good, seeds, 0))
            outputs |= compute_novelty(self.model, features, MeanHandler())
            return _first_rows(_set_nan_rows(outputs, good), rows)

        return self._with_defaults(sample)

    def draws(self) -> GraphFunction:
        """Makes the signature of each head's mean per draw, [batch, samples, …].

        The number of draws and the seed hold for the whole request.
        """

        def draws(images: tf.Tensor, num_samples: tf.Tensor, seed: tf.Tensor) -> NamedTensors:
            count = _check_scalar(num_samples, "num_samples", 1, self.posterior.max_samples)
            seed = _check_scalar(seed, "seed", 0, 2**31 - 1)
            names = [head.name for head in self.model.heads]
            rows, images = tf.shape(images)[0], _pad_empty(_ensure_sides(self.model, images))
            good = _good_rows(images, self.model.input)
            features = self.model.shared_features(_clear_rows(images, good))

            def evaluate_means(position: tf.Tensor) -> list[tf.Tensor]:
                moments = self._evaluate_draw(features, seed, position)
                return [moments[name].mean for name in names]

            stacks = tf.map_fn(
                evaluate_means, tf.range(count), fn_output_signature=[tf.float32] * len(names), parallel_iterations=1
            )
            outputs = {
                f"{name}.mean": tf.transpose(stack, [1, 0, *range(2, len(stack.shape))])
                for name, stack in zip(names, stacks, strict=True)
            }
            outputs |= compute_novelty(self.model, features, MeanHandler())
            return _first_rows(_set_nan_rows(outputs, good), rows)

        return self._with_defaults(draws)

    def _with_defaults(self, function: Callable[..., NamedTensors]) -> GraphFunction:
        """Compiles a function with the bundle's number of draws and seed as signature defaults.

        TensorFlow writes SignatureDef.defaults where the default of a Python parameter is a tensor.
        """
        function.__defaults__ = (
            tf.constant([self.posterior.samples], tf.int32),
            tf.constant([self.posterior.seed], tf.int32),
        )
        specs = [
            images_spec(self.model),
            tf.TensorSpec([None], tf.int32, name="num_samples"),
            tf.TensorSpec([None], tf.int32, name="seed"),
        ]
        return compile_function(function, specs)

    def _evaluate_draw(self, features: Any, seed: tf.Tensor, position: tf.Tensor) -> dict[str, Moments]:
        with use_handler(self.model.draw_handler(seed, self._index(seed, position))):
            return self.model.moments_from(features)

    def _index(self, seed: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
        """With the bundle's seed the bank's order, then the unused indices ascending; else the position."""
        table = tf.constant(index_table(self.posterior), tf.int32)
        return tf.where(seed == self.posterior.seed, tf.gather(table, position), position)

    def _combine_by_seed(self, features: Any, counts: tf.Tensor, seeds: tf.Tensor) -> NamedTensors:
        """Combines `counts` [rows] draws of `seeds` [rows]: a loop over the distinct seeds around a loop over draws."""
        groups, group_of_row = tf.unique(seeds)
        group_count = tf.size(groups)
        order = tf.argsort(group_of_row, stable=True)

        def add_group(
            group: tf.Tensor, arrays: dict[str, tf.TensorArray]
        ) -> tuple[tf.Tensor, dict[str, tf.TensorArray]]:
            rows = tf.where(group_of_row == group)[:, 0]
            features_of_group = _map_rows(lambda tensor: tf.gather(tensor, rows), features)
            outputs = self._combine_running(features_of_group, tf.gather(counts, rows), groups[group])
            return group + 1, {name: array.write(group, outputs[name]) for name, array in arrays.items()}

        shapes = {
            f"{head.name}.{quantity}": shape
            for head in self.model.heads
            for quantity, shape in head.output_shapes(self.model.positions(head)).items()
        }
        arrays = {
            name: tf.TensorArray(tf.float32, group_count, infer_shape=False, element_shape=[None, *shape])
            for name, shape in shapes.items()
        }
        _, arrays = tf.while_loop(
            lambda group, _: group < group_count, add_group, (tf.constant(0), arrays), parallel_iterations=1
        )
        row_places = tf.math.invert_permutation(order)
        return {
            name: tf.gather(tf.ensure_shape(array.concat(), [None, *shapes[name]]), row_places)
            for name, array in arrays.items()
        }

    def _combine_running(self, features: Any, counts: tf.Tensor, seed: tf.Tensor) -> NamedTensors:
        """Combines `counts` [rows] draws of one seed; the memory does not grow with the number of draws.

        The rows go by their number, the largest first, so that each draw is computed for those that want it alone: a
        row costs what it would alone.
        """
        order = tf.argsort(counts, direction="DESCENDING", stable=True)
        features, counts = _map_rows(lambda rows: tf.gather(rows, order), features), tf.gather(counts, order)

        def add_position(position: tf.Tensor, running: Running) -> Running:
            wanted = tf.math.count_nonzero(position < counts, dtype=tf.int32)
            moments = self._evaluate_draw(_map_rows(lambda rows: rows[:wanted], features), seed, position)
            count = tf.cast(position + 1, tf.float32)
            added = {
                name: add_draw(_map_rows(lambda rows: rows[:wanted], running[name]), count, moments[name])
                for name in moments
            }
            joined: Running = tf.nest.map_structure(
                lambda new, old: tf.ensure_shape(tf.concat([new, old[wanted:]], 0), old.shape), added, dict(running)
            )
            return joined

        first = self._evaluate_draw(features, seed, tf.constant(0))
        running = {name: start_running(moments) for name, moments in first.items()}
        largest = tf.reduce_max(counts)
        _, running = tf.while_loop(
            lambda position, _: position < largest,
            lambda position, running: (position + 1, add_position(position, running)),
            (tf.constant(1), running),
            parallel_iterations=1,
        )
        divisors = tf.cast(tf.maximum(counts, 1), tf.float32)
        quantities = {}
        for head in self.model.heads:
            moments = running[head.name]
            divisor = tf.reshape(divisors, [-1] + [1] * (len(moments.mean.shape) - 1))
            quantities[head.name] = finish_running(head, moments, divisor)
        places = tf.math.invert_permutation(order)
        return {name: tf.gather(values, places) for name, values in name_quantities(quantities).items()}


def is_encodable(input: Input) -> bool:
    """Whether a graph can decode pictures of this input: fixed size, two dimensions, 8 bits."""
    return len(input.shape) == 3 and None not in input.shape and input.colour != "none" and input.range == (0, 255)


def _check_scalar(values: tf.Tensor, name: str, low: int, high: int) -> tf.Tensor:
    """Returns the one value of a request; InvalidArgument if there are several or it is out of range."""
    checks = [
        tf.debugging.assert_equal(tf.size(values), 1, f"{name} must have length 1"),
        tf.debugging.assert_greater_equal(values, low, f"{name} must be {low} to {high}"),
        tf.debugging.assert_less_equal(values, high, f"{name} must be {low} to {high}"),
    ]
    with tf.control_dependencies(checks):
        return tf.identity(values[0])


def _ensure_sides(model: Exportable, images: tf.Tensor) -> tf.Tensor:
    """Returns the images; InvalidArgument for other sides than the model's: a session does not check the signature."""
    return tf.ensure_shape(images, [None, *model.input.shape])


def _expand_to_rows(values: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """Broadcasts a vector of length 1 or batch to length batch."""
    return tf.broadcast_to(_pad_empty(values), tf.shape(images)[:1])


def _pad_empty(values: tf.Tensor) -> tf.Tensor:
    """Returns the rows, or one row of zeros if there are none: convolutions fail on an empty batch."""
    missing = tf.maximum(0, 1 - tf.shape(values)[0])
    return tf.pad(values, [[0, missing], *[[0, 0]] * (len(values.shape) - 1)])


def _first_rows(outputs: NamedTensors, rows: tf.Tensor) -> NamedTensors:
    return {name: value[:rows] for name, value in outputs.items()}


def _good_rows(images: tf.Tensor, input: Input) -> tf.Tensor:
    """Which images have only finite values inside the input's range, bool [batch]."""
    good = tf.math.is_finite(images)
    if input.range is not None:
        good &= (images >= input.range[0]) & (images <= input.range[1])
    return tf.reduce_all(good, axis=list(range(1, len(images.shape))))


def _map_rows(function: Callable[[tf.Tensor], tf.Tensor], nested: Any) -> Any:
    """Applies a function to every tensor of a nested structure; dimension 0 of each is the batch."""
    return tf.nest.map_structure(function, nested)


def _clear_rows(images: tf.Tensor, good: tf.Tensor) -> tf.Tensor:
    """Sets the rows that are not good to 0."""
    return _where_rows(good, images, tf.zeros_like(images))


def _set_nan_rows(outputs: NamedTensors, good: tf.Tensor) -> NamedTensors:
    """Sets the rows that are not good to NaN."""
    nan = tf.constant(np.nan, tf.float32)
    return {name: _where_rows(good, value, nan * tf.ones_like(value)) for name, value in outputs.items()}


def _where_rows(rows: tf.Tensor, values: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Chooses row by row between two tensors; `rows` is bool [batch]."""
    return tf.where(tf.reshape(rows, [-1] + [1] * (len(values.shape) - 1)), values, others)
