"""The SavedModel's signatures, with the Monte Carlo sampling inside.

Everything is stateless in (seed, index). In the signatures that servers batch (`serving_default`,
`sample`, `mean`) a row depends on nothing but itself: a bad row answers NaN and harms no other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from probrt.exporter.graphs import Outputs, chunk_outputs, images_spec, index_table, mean_outputs, named
from probrt.runtime.bundle.manifest import PosteriorRecord
from probrt.trainer.heads import moments
from probrt.trainer.heads.moments import RunningMoments, add_draw, finish_running, start_running
from probrt.trainer.model import Model
from probrt.trainer.variational.handlers import MeanHandler, use_handler

_Running = dict[str, RunningMoments]


@dataclass(frozen=True)
class Signatures:
    """The functions of one model and one bank."""

    model: Model
    posterior: PosteriorRecord | None

    def all(self) -> dict[str, Callable[..., Outputs]]:
        """The signatures by name."""
        if self.posterior is None:  # one model without random weights: one pass is all there is
            found = {"serving_default": self.mean(), "mean": self.mean()}
            return found | ({"encoded": self.encoded(found["mean"])} if encodable(self.model) else {})
        bank = self.serving_default()
        found = {
            "serving_default": bank,
            "sample": self.sample(),
            "draws": self.draws(),
            "mean": self.mean(),
        }
        if encodable(self.model):
            found["encoded"] = self.encoded(bank)
        return found

    def serving_default(self) -> Callable[..., Outputs]:
        """All heads over the bundle's own number of draws and seed, unrolled: the fastest plain form."""

        bank = self.posterior.order[: self.posterior.samples]

        def serving_default(images: tf.Tensor) -> Outputs:
            rows, images = tf.shape(images)[0], _never_empty(self._shaped(images))
            good = _finite(images)
            handlers = self.model.draw_handlers(self.posterior.seed, bank, len(bank))
            outputs = chunk_outputs(self.model, handlers, _cleared(images, good))
            return _first_rows(_nan_rows(outputs, good), rows)

        return tf.function(serving_default, input_signature=[images_spec(self.model)], autograph=False)

    def mean(self) -> Callable[..., Outputs]:
        """One pass at the posterior mean."""

        def mean(images: tf.Tensor) -> Outputs:
            rows, images = tf.shape(images)[0], _never_empty(self._shaped(images))
            good = _finite(images)
            with use_handler(MeanHandler()):
                outputs = mean_outputs(self.model, _cleared(images, good))
            return _first_rows(_nan_rows(outputs, good), rows)

        return tf.function(mean, input_signature=[images_spec(self.model)], autograph=False)

    def sample(self) -> Callable[..., Outputs]:
        """All heads for any number of draws and any seed, per row."""

        def sample(images: tf.Tensor, num_samples: tf.Tensor, seed: tf.Tensor) -> Outputs:
            rows = tf.shape(images)[0]
            images = _never_empty(self._shaped(images))
            number, seeds = _per_row(num_samples, images), _per_row(seed, images)
            good = _finite(images) & (number >= 1) & (number <= self.posterior.max_samples) & (seeds >= 0)
            outputs = self._grouped(_cleared(images, good), tf.where(good, number, 0), tf.where(good, seeds, 0))
            return _first_rows(_nan_rows(outputs, good), rows)

        return self._with_defaults(sample)

    def draws(self) -> Callable[..., Outputs]:
        """Each head's mean per draw, [batch, samples, …]; one number and one seed for the whole request."""

        def draws(images: tf.Tensor, num_samples: tf.Tensor, seed: tf.Tensor) -> Outputs:
            number = self._scalar(num_samples, "num_samples", 1, self.posterior.max_samples)
            start = self._scalar(seed, "seed", 0, 2**31 - 1)
            names = [head.name for head in self.model.heads]
            rows, images = tf.shape(images)[0], _never_empty(self._shaped(images))
            shared = self.model.shared_features(images)

            def one(position: tf.Tensor) -> list[tf.Tensor]:
                answer = self._draw(shared, start, position)
                return [answer[name].mean for name in names]

            stacks = tf.map_fn(
                one, tf.range(number), fn_output_signature=[tf.float32] * len(names), parallel_iterations=1
            )
            outputs = {
                f"{name}.mean": tf.transpose(stack, [1, 0, *range(2, len(stack.shape))])
                for name, stack in zip(names, stacks, strict=True)
            }
            return _first_rows(outputs, rows)

        return self._with_defaults(draws)

    def encoded(self, bank: Callable[..., Outputs]) -> Callable[..., Outputs]:
        """`serving_default` of PNG or JPEG bytes, decoded and resized in the graph."""
        height, width, channels = self.model.input.shape

        def decoded(content: tf.Tensor) -> tf.Tensor:
            # Despite its name the op reads PNG too; the accurate integer transform is Pillow's.
            pixels = tf.io.decode_jpeg(content, channels=channels, dct_method="INTEGER_ACCURATE")
            resized = tf.image.resize(tf.cast(pixels, tf.float32), [height, width], antialias=True)
            return tf.clip_by_value(tf.round(resized), 0.0, 255.0)

        def encoded(image_bytes: tf.Tensor) -> Outputs:
            shape = tf.TensorSpec([height, width, channels], tf.float32)
            return bank(tf.map_fn(decoded, image_bytes, fn_output_signature=shape))

        specs = [tf.TensorSpec([None], tf.string, name="image_bytes")]
        return tf.function(encoded, input_signature=specs, autograph=False)

    def _shaped(self, images: tf.Tensor) -> tf.Tensor:
        """The images; InvalidArgument if their sides are not the model's: a session does not look at the signature."""
        return tf.ensure_shape(images, [None, *self.model.input.shape])

    def _with_defaults(self, function: Callable[..., Outputs]) -> Callable[..., Outputs]:
        """The function with the bundle's number and seed as signature defaults.

        A tensor as the parameter's default is what makes TensorFlow write SignatureDef.defaults.
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
        return tf.function(function, input_signature=specs, autograph=False)

    def _draw(self, shared: list[tf.Tensor], seed: tf.Tensor, position: tf.Tensor) -> dict[str, moments.Moments]:
        with use_handler(self.model.draw_handler(seed, self._index(seed, position))):
            return self.model.moments_from(shared)

    def _index(self, seed: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
        """With the bundle's seed the bank's order, then the unused indices ascending; else the position."""
        table = tf.constant(index_table(self.posterior), tf.int32)
        return tf.where(seed == self.posterior.seed, tf.gather(table, position), position)

    def _grouped(self, images: tf.Tensor, number: tf.Tensor, seeds: tf.Tensor) -> Outputs:
        """Rows grouped by seed: a loop over seeds around a loop over draws, in running sums."""
        groups, group_of_row = tf.unique(seeds)
        used = tf.size(groups)
        order = tf.argsort(group_of_row, stable=True)

        def group(which: tf.Tensor, done: dict[str, tf.TensorArray]) -> tuple[tf.Tensor, dict[str, tf.TensorArray]]:
            rows = tf.where(group_of_row == which)[:, 0]
            answer = self._running(tf.gather(images, rows), tf.gather(number, rows), groups[which])
            return which + 1, {name: array.write(which, answer[name]) for name, array in done.items()}

        shapes = {
            f"{head.name}.{quantity}": shape
            for head in self.model.heads
            for quantity, shape in head.outputs(self.model.positions(head)).items()
        }
        arrays = {
            name: tf.TensorArray(tf.float32, used, infer_shape=False, element_shape=[None, *shape])
            for name, shape in shapes.items()
        }
        _, arrays = tf.while_loop(lambda which, _: which < used, group, (tf.constant(0), arrays), parallel_iterations=1)
        back = tf.math.invert_permutation(order)
        return {
            name: tf.gather(tf.ensure_shape(array.concat(), [None, *shapes[name]]), back)
            for name, array in arrays.items()
        }

    def _running(self, images: tf.Tensor, number: tf.Tensor, seed: tf.Tensor) -> Outputs:
        """All heads over `number` [rows] draws of one seed; memory does not grow with the number."""
        shared = self.model.shared_features(images)

        def after(position: tf.Tensor, running: _Running) -> _Running:
            drawn = self._draw(shared, seed, position)
            counted = position < number
            count = tf.cast(position + 1, tf.float32)
            return {
                name: tf.nest.map_structure(
                    lambda this, that: _where_rows(counted, (this,), (that,))[0],
                    add_draw(running[name], count, drawn[name]),
                    running[name],
                )
                for name in drawn
            }

        first = self._draw(shared, seed, tf.constant(0))
        running = {name: start_running(drawn) for name, drawn in first.items()}
        most = tf.reduce_max(number)
        _, running = tf.while_loop(
            lambda position, _: position < most,
            lambda position, state: (position + 1, after(position, state)),
            (tf.constant(1), running),
            parallel_iterations=1,
        )
        count = tf.cast(tf.maximum(number, 1), tf.float32)
        answers = {}
        for head in self.model.heads:
            sums = running[head.name]
            over = tf.reshape(count, [-1] + [1] * (len(sums.mean.shape) - 1))
            answers[head.name] = finish_running(head, sums, over)
        return named(answers)

    def _scalar(self, values: tf.Tensor, name: str, low: int, high: int) -> tf.Tensor:
        """The one value of a request; InvalidArgument if there are several or it is out of range."""
        checks = [
            tf.debugging.assert_equal(tf.size(values), 1, f"{name} must have length 1"),
            tf.debugging.assert_greater_equal(values, low, f"{name} must be {low} to {high}"),
            tf.debugging.assert_less_equal(values, high, f"{name} must be {low} to {high}"),
        ]
        with tf.control_dependencies(checks):
            return tf.identity(values[0])


def encodable(model: Model) -> bool:
    """Whether pictures can be decoded inside the graph: fixed size, two dimensions, 8 bits."""
    shape = model.input.shape
    return len(shape) == 3 and None not in shape and model.input.colour != "none" and model.input.range == (0, 255)


def _per_row(values: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """A vector of length 1 or batch as one of length batch."""
    return tf.broadcast_to(_never_empty(values), tf.shape(images)[:1])


def _never_empty(values: tf.Tensor) -> tf.Tensor:
    """The rows, or one row of zeros where there are none: convolutions fail on an empty batch."""
    missing = tf.maximum(0, 1 - tf.shape(values)[0])
    return tf.pad(values, [[0, missing], *[[0, 0]] * (len(values.shape) - 1)])


def _first_rows(outputs: Outputs, rows: tf.Tensor) -> Outputs:
    return {name: value[:rows] for name, value in outputs.items()}


def _finite(images: tf.Tensor) -> tf.Tensor:
    return tf.reduce_all(tf.math.is_finite(images), axis=list(range(1, len(images.shape))))


def _cleared(images: tf.Tensor, good: tf.Tensor) -> tf.Tensor:
    return _where_rows(good, (images,), (tf.zeros_like(images),))[0]


def _nan_rows(outputs: Outputs, good: tf.Tensor) -> Outputs:
    nan = tf.constant(np.nan, tf.float32)
    return {name: _where_rows(good, (value,), (nan * tf.ones_like(value),))[0] for name, value in outputs.items()}


def _where_rows(rows: tf.Tensor, these: tuple[tf.Tensor, ...], those: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
    """Row by row, one of two tuples of tensors; `rows` is bool [batch]."""
    return tuple(
        tf.where(tf.reshape(rows, [-1] + [1] * (len(this.shape) - 1)), this, that)
        for this, that in zip(these, those, strict=True)
    )
