"""A probabilistic model: one network, several heads, calibration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

import keras
import tensorflow as tf

from probrt.runtime.bundle.manifest import Calibration, Input
from probrt.trainer.heads import AnyHead, Moments
from probrt.trainer.heads.moments import combine_moments, combine_stacked
from probrt.trainer.keras_internals import flatten_layers, nodes_in_order
from probrt.trainer.variational.handlers import (
    ConstantHandler,
    DrawHandler,
    Handler,
    MeanHandler,
    compute_weights,
    make_draw_handlers,
    use_handler,
)
from probrt.trainer.variational.random_weight import RandomWeight, find_random_weights

Features = list[tf.Tensor]
Channels = dict[str, tf.Tensor]
T = TypeVar("T")


@dataclass(frozen=True)
class Model:
    """What training produces and export takes.

    network: Keras 3, raw images [batch, *input.shape] → {head: channels}; call it under a handler.

    The network is cut where the first random weights come in. `shared_features` runs the first part, once for all
    draws; the methods named `…_from` run the rest, once per draw.
    """

    name: str
    input: Input
    heads: tuple[AnyHead, ...]
    network: keras.Model
    calibration: tuple[Calibration, ...] = ()

    @property
    def weights(self) -> list[RandomWeight]:
        """The random weights, once each."""
        return find_random_weights(self.network)

    @property
    def members(self) -> tuple[Model, ...]:
        """The models that it consists of: itself; an ensemble has several."""
        return (self,)

    @property
    def max_draws(self) -> int | None:
        """The number of draws that differ from each other: one without random weights, else no bound (None)."""
        return None if self.weights else 1

    @property
    def draws_in_graph(self) -> bool:
        """Whether a TFLite or ONNX graph can make the draws from a seed."""
        return all(weight.posterior.in_graph for weight in self.weights)

    def constant_mean_handler(self) -> Handler:
        """Returns a handler that holds every random weight's posterior mean; call it outside a trace."""
        return ConstantHandler(compute_weights(self.network, MeanHandler()))

    def constant_draw_handler(self, seed: int, index: int) -> Handler:
        """Returns a handler that holds every random weight's draw (seed, index); call it outside a trace."""
        return ConstantHandler(compute_weights(self.network, DrawHandler(seed, index)))

    def draw_handlers(self, seed: tf.Tensor | int, indices: tf.Tensor | Sequence[int], count: int) -> list[Handler]:
        """Returns handlers of `count` draws (seed, indices[i]); makes the noise of all draws and weights at once."""
        return list(make_draw_handlers(self.network, seed, tf.convert_to_tensor(indices, tf.int32), count))

    def draw_handler(self, seed: tf.Tensor, index: tf.Tensor) -> Handler:
        """Returns the handler of draw (seed, index), int32 scalars; use it in the function that creates it."""
        return self.draw_handlers(seed, index[None], 1)[0]

    def channels(self, images: tf.Tensor, training: bool = False) -> Channels:
        """Returns each head's channels under the active handler, before calibration, float32."""
        return _to_float32(self.network(images, training=training))

    def moments(self, images: tf.Tensor) -> dict[str, Moments]:
        """Returns each head's calibrated moments under the active handler, from the whole network."""
        return self.calibrated_moments(self.channels(images))

    def shared_features(self, images: tf.Tensor) -> Features:
        """Computes the deterministic features that all draws share."""
        with use_handler(MeanHandler()):
            features = self._parts[0](images, training=False)
        return list(features) if isinstance(features, list | tuple) else [features]  # Keras unwraps a list of one

    def channels_from(self, features: Features) -> Channels:
        """Returns each head's channels under the active handler, before calibration, from shared features."""
        drawn = self._parts[1]
        if drawn is None:
            return _to_float32(dict(zip(self.network.output, features, strict=True)))
        return _to_float32(drawn(features, training=False))

    def moments_from(self, features: Features) -> dict[str, Moments]:
        """Returns each head's calibrated moments under the active handler, from shared features."""
        return self.calibrated_moments(self.channels_from(features))

    def combine_draws(self, images: tf.Tensor, handlers: Sequence[Handler]) -> dict[str, dict[str, tf.Tensor]]:
        """Returns each head's quantities over the draws of some handlers."""
        draws = map_draws(self, images, handlers, self.channels_from)
        answers = {}
        for head in self.heads:
            channels = [draw[head.name] for draw in draws]
            if head.per_position:
                moments_by_draw = [head.moments(self.calibrate(head, values)) for values in channels]
                answers[head.name] = combine_moments(head, moments_by_draw)
            else:  # one small graph for all draws; maps would need the memory of all of them
                moments = head.moments(self.calibrate(head, tf.concat(channels, 0)))
                answers[head.name] = combine_stacked(head, moments, len(channels))
        return answers

    def calibrated_moments(self, channels: Channels) -> dict[str, Moments]:
        """Returns each head's moments of its calibrated channels."""
        return {head.name: head.moments(self.calibrate(head, channels[head.name])) for head in self.heads}

    def calibrate(self, head: AnyHead, channels: tf.Tensor) -> tf.Tensor:
        """Applies the head's temperature or scale to its channels."""
        for calibration in self.calibration:
            if calibration.head == head.name:
                return head.calibrate_channels(channels, head.calibration_value(calibration))
        return channels

    def positions(self, head: AnyHead) -> list[int | None]:
        """Returns the sides of a head's answers after the batch; none for a pooled head."""
        return list(self.network.output[head.name].shape[1:-1]) if head.per_position else []

    def head_variables(self, head: AnyHead) -> list[keras.Variable]:
        """Returns the trained variables of a head's own layers; none if it shares the final convolution."""
        prefix = own_layer_name(head, "")
        layers = [layer for layer in self.network.layers if layer.name.startswith(prefix)]
        return [variable for layer in layers for variable in layer.trainable_variables]

    def without_auxiliary(self) -> Model:
        """Returns the model without its auxiliary heads."""
        heads = tuple(head for head in self.heads if not head.auxiliary)
        if len(heads) == len(self.heads):
            return self
        names = {head.name for head in heads}
        network = keras.Model(
            self.network.input, {name: self.network.output[name] for name in sorted(names)}, name=self.network.name
        )
        calibration = tuple(calibration for calibration in self.calibration if calibration.head in names)
        return dataclasses.replace(self, heads=heads, network=network, calibration=calibration)

    @cached_property
    def _parts(self) -> tuple[keras.Model, keras.Model | None]:
        """The network cut where the first random weights come in; None if there are none."""
        random: set[int] = set()
        border: dict[int, keras.KerasTensor] = {}
        for node in nodes_in_order(self.network):
            has_weights = any(getattr(layer, "random_weights", ()) for layer in flatten_layers(node.operation))
            if has_weights or any(id(tensor) in random for tensor in node.inputs):
                random |= {id(tensor) for tensor in node.outputs}
                border |= {id(tensor): tensor for tensor in node.inputs if id(tensor) not in random}
        border |= {id(tensor): tensor for tensor in self.network.output.values() if id(tensor) not in random}
        cut = list(border.values())
        return keras.Model(self.network.input, cut), keras.Model(cut, self.network.output) if random else None


class SharesFeatures(Protocol):
    """A model, or an ensemble, that computes once what all draws share."""

    def shared_features(self, images: tf.Tensor) -> Any:
        """Computes the deterministic features that all draws share."""


def map_draws(
    model: SharesFeatures, images: tf.Tensor, handlers: Sequence[Handler], evaluate: Callable[[Any], T]
) -> list[T]:
    """Evaluates a function of the shared features under each handler; computes the features once.

    evaluate: a method of `model` such as `channels_from` or `moments_from`.
    """
    features = model.shared_features(images)
    results = []
    for handler in handlers:
        with use_handler(handler):
            results.append(evaluate(features))
    return results


def compile_answer(model: Model, seed: int, draws: int) -> Callable[[tf.Tensor], dict[str, dict[str, tf.Tensor]]]:
    """Compiles a function of raw images that returns each head's quantities over `draws` draws of a seed."""

    def answer(images: tf.Tensor) -> dict[str, dict[str, tf.Tensor]]:
        return model.combine_draws(images, model.draw_handlers(seed, tf.range(draws), draws))

    compiled: Callable[[tf.Tensor], dict[str, dict[str, tf.Tensor]]] = tf.function(
        answer, reduce_retracing=True, autograph=False
    )
    return compiled


def own_layer_name(head: AnyHead, part: str) -> str:
    """Returns the name of a layer that belongs to one head alone."""
    # Two hyphens, because a head's name may be the beginning of another's.
    return f"head--{head.name}--{part}"


def _to_float32(channels: Channels) -> Channels:
    return {name: tf.cast(values, tf.float32) for name, values in channels.items()}
