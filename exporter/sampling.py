"""The SavedModel's signatures that make draws; each row has a number of draws and a seed of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from probrt.exporter.batch_rows import (
    clear_rows,
    ensure_sides,
    expand_to_rows,
    first_rows,
    good_rows,
    map_rows,
    pad_empty,
    set_nan_rows,
)
from probrt.exporter.exportable import Exportable
from probrt.exporter.graphs import (
    GraphFunction,
    NamedTensors,
    combine_named,
    compile_function,
    compute_novelty,
    images_spec,
    index_table,
    name_quantities,
)
from probrt.exporter.stored_draws import StoredDraws
from probrt.runtime.bundle.manifest import PosteriorRecord
from probrt.trainer.heads import Moments
from probrt.trainer.heads.moments import RunningMoments, add_draw, finish_running, start_running
from probrt.trainer.variational.handlers import MeanHandler, use_handler

Running = Mapping[str, RunningMoments]  # by head
Shapes = Mapping[str, Sequence[int | None]]  # by output, without the batch


@dataclass(frozen=True, kw_only=True)
class Request:
    """The rows of a request that samples.

    rows: how many there are; if none, one row of zeros stands for them. good: bool [rows].
    counts, seeds: int32 [rows], 0 in a bad row. width: the largest number of draws that a row asks for, at least 1.
    features: what all draws share.
    """

    rows: tf.Tensor
    good: tf.Tensor
    counts: tf.Tensor
    seeds: tf.Tensor
    width: tf.Tensor
    features: Any


@dataclass(frozen=True)
class SamplingSignatures:
    """The signatures of one model and its bank that give more than one draw.

    stored: the draws of `serving_default`; None to make them in the graph.
    """

    model: Exportable
    posterior: PosteriorRecord
    stored: StoredDraws | None

    def serving_default(self) -> GraphFunction:
        """Makes the signature of all heads over the bundle's draws and seed, unrolled: the fastest plain form."""
        seed, bank = self.posterior.seed, self.posterior.order[: self.posterior.samples]

        def serving_default(images: tf.Tensor) -> NamedTensors:
            rows, images = tf.shape(images)[0], pad_empty(ensure_sides(self.model, images))
            good = good_rows(images, self.model.input)
            stored = self.stored
            handlers = stored.handlers() if stored else self.model.draw_handlers(seed, bank, len(bank))
            outputs = combine_named(self.model, handlers, clear_rows(images, good), MeanHandler())
            return first_rows(set_nan_rows(outputs, good), rows)

        return compile_function(serving_default, [images_spec(self.model)])

    def sample(self) -> GraphFunction:
        """Makes the signature of all heads for any number of draws and any seed, per row."""

        shapes = {
            f"{head.name}.{quantity}": shape
            for head in self.model.heads
            for quantity, shape in head.output_shapes(self.model.positions(head)).items()
        }

        def sample(images: tf.Tensor, num_samples: tf.Tensor, seed: tf.Tensor) -> NamedTensors:
            request = self._read_request(images, num_samples, seed)
            return self._answer(request, _evaluate_by_seed(request, self._combine_running, shapes))

        return self._with_defaults(sample)

    def draws(self) -> GraphFunction:
        """Makes the signature of each head's mean per draw, [batch, samples, …], for any number and seed, per row.

        `samples` is the largest number in the batch; a row is NaN beyond its own.
        """
        shapes = {
            f"{head.name}.mean": [None, *head.output_shapes(self.model.positions(head))["mean"]]
            for head in self.model.heads
        }

        def draws(images: tf.Tensor, num_samples: tf.Tensor, seed: tf.Tensor) -> NamedTensors:
            request = self._read_request(images, num_samples, seed)
            stack = functools.partial(self._stack_means, width=request.width)
            return self._answer(request, _evaluate_by_seed(request, stack, shapes))

        return self._with_defaults(draws)

    def _read_request(self, images: tf.Tensor, num_samples: tf.Tensor, seed: tf.Tensor) -> Request:
        """Checks each row's image, number and seed, and computes the features that all draws share."""
        rows = tf.shape(images)[0]
        images = pad_empty(ensure_sides(self.model, images))
        counts, seeds = expand_to_rows(num_samples, images), expand_to_rows(seed, images)
        in_range = (counts >= 1) & (counts <= self.posterior.max_samples)
        good = good_rows(images, self.model.input) & (seeds >= 0) & in_range
        return Request(
            rows=rows,
            good=good,
            counts=tf.where(good, counts, 0),
            seeds=tf.where(good, seeds, 0),
            width=tf.maximum(tf.reduce_max(tf.where(in_range, counts, 0)), 1),
            features=self.model.shared_features(clear_rows(images, good)),
        )

    def _answer(self, request: Request, outputs: NamedTensors) -> NamedTensors:
        """Adds the novelty, sets bad rows to NaN, and removes the row that stands for none."""
        outputs = outputs | compute_novelty(self.model, request.features, MeanHandler())
        return first_rows(set_nan_rows(outputs, request.good), request.rows)

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

    def _stack_means(self, features: Any, counts: tf.Tensor, seed: tf.Tensor, width: tf.Tensor) -> NamedTensors:
        """Computes the means of `counts` [rows] draws of one seed, [rows, width, …]; NaN beyond a row's number.

        As in `_combine_running` each draw is computed for the rows that want it alone.
        """
        features, counts, places = _sort_by_count(features, tf.maximum(counts, 1))  # no layer takes an empty batch
        rows, largest = tf.shape(counts)[0], tf.reduce_max(counts)
        names = [head.name for head in self.model.heads]

        def evaluate_means(position: tf.Tensor) -> list[tf.Tensor]:
            wanted = tf.math.count_nonzero(position < counts, dtype=tf.int32)
            moments = self._evaluate_draw(map_rows(lambda values: values[:wanted], features), seed, position)
            return [_pad_with_nan(moments[name].mean, rows) for name in names]

        stacks = tf.map_fn(
            evaluate_means, tf.range(largest), fn_output_signature=[tf.float32] * len(names), parallel_iterations=1
        )
        outputs = {}
        for name, stack in zip(names, stacks, strict=True):
            padded = _pad_with_nan(stack, width)
            by_row = tf.transpose(padded, [1, 0, *range(2, len(padded.shape))])
            outputs[f"{name}.mean"] = tf.gather(by_row, places)
        return outputs

    def _combine_running(self, features: Any, counts: tf.Tensor, seed: tf.Tensor) -> NamedTensors:
        """Combines `counts` [rows] draws of one seed; the memory does not grow with the number of draws.

        The rows go by their number, the largest first, so that each draw is computed for those that want it alone: a
        row costs what it would alone.
        """
        features, counts, places = _sort_by_count(features, counts)

        def add_position(position: tf.Tensor, running: Running) -> Running:
            wanted = tf.math.count_nonzero(position < counts, dtype=tf.int32)
            moments = self._evaluate_draw(map_rows(lambda rows: rows[:wanted], features), seed, position)
            count = tf.cast(position + 1, tf.float32)
            added = {
                name: add_draw(map_rows(lambda rows: rows[:wanted], running[name]), count, moments[name])
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
        return {name: tf.gather(values, places) for name, values in name_quantities(quantities).items()}


def _evaluate_by_seed(
    request: Request, evaluate: Callable[[Any, tf.Tensor, tf.Tensor], NamedTensors], shapes: Shapes
) -> NamedTensors:
    """Calls `evaluate(features, counts, seed)` with the rows of each distinct seed, and joins the answers by row."""
    groups, group_of_row = tf.unique(request.seeds)
    group_count = tf.size(groups)

    def add_group(group: tf.Tensor, arrays: dict[str, tf.TensorArray]) -> tuple[tf.Tensor, dict[str, tf.TensorArray]]:
        rows = tf.where(group_of_row == group)[:, 0]
        features = map_rows(lambda values: tf.gather(values, rows), request.features)
        outputs = evaluate(features, tf.gather(request.counts, rows), groups[group])
        return group + 1, {name: array.write(group, outputs[name]) for name, array in arrays.items()}

    arrays = {
        name: tf.TensorArray(tf.float32, group_count, infer_shape=False, element_shape=[None, *shape])
        for name, shape in shapes.items()
    }
    _, arrays = tf.while_loop(
        lambda group, _: group < group_count, add_group, (tf.constant(0), arrays), parallel_iterations=1
    )
    places = tf.math.invert_permutation(tf.argsort(group_of_row, stable=True))
    return {
        name: tf.gather(tf.ensure_shape(array.concat(), [None, *shapes[name]]), places)
        for name, array in arrays.items()
    }


def _sort_by_count(features: Any, counts: tf.Tensor) -> tuple[Any, tf.Tensor, tf.Tensor]:
    """Sorts rows by their number of draws, the largest first; returns also where each row has gone."""
    order = tf.argsort(counts, direction="DESCENDING", stable=True)
    sorted_features = map_rows(lambda values: tf.gather(values, order), features)
    return sorted_features, tf.gather(counts, order), tf.math.invert_permutation(order)


def _pad_with_nan(values: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Appends NaN along dimension 0 up to a length."""
    missing = [[0, length - tf.shape(values)[0]], *[[0, 0]] * (len(values.shape) - 1)]
    return tf.pad(values, missing, constant_values=np.float32(np.nan))
