"""A probabilistic model: one network, several heads, calibration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import keras
import tensorflow as tf

from probrt.runtime.bundle.manifest import NOVELTY, Calibration, Input
from probrt.runtime.errors import ConfigError
from probrt.trainer.heads import AnyHead, Moments
from probrt.trainer.heads.moments import combine_moments, combine_stacked
from probrt.trainer.network_parts import Features, NetworkParts, as_list
from probrt.trainer.novelty.pool import count_features, join_sets, pool_stages
from probrt.trainer.novelty.score import Novelty
from probrt.trainer.novelty.stages import stage_tensors
from probrt.trainer.variational.handlers import (
    ConstantHandler,
    Handler,
    MeanHandler,
    compute_weights,
    make_draw_handlers,
    use_handler,
)
from probrt.trainer.variational.random_weight import RandomWeight, find_random_weights
from probrt.trainer.variational.tuned_draws import TunedDraws

Channels = dict[str, tf.Tensor]
T = TypeVar("T")


@dataclass(frozen=True)
class Model:
    """What training produces and export takes.

    network: Keras 3, raw images [batch, *input.shape] → {head: channels}; call it under a handler.
    novelty: how far an image lies from the training images; None if the model cannot tell.
    tuned: draws whose noise an export has moved; None if it is all as generated.

    The network is cut where the first random weights come in. `shared_features` runs the first part, once for all
    draws; the methods named `…_from` run the rest, once per draw. Raises ConfigError for a head of a reserved name.
    """

    name: str
    input: Input
    heads: tuple[AnyHead, ...]
    network: keras.Model
    calibration: tuple[Calibration, ...] = ()
    novelty: Novelty | None = None
    tuned: TunedDraws | None = None

    def __post_init__(self) -> None:
        if any(head.name == NOVELTY for head in self.heads):
            raise ConfigError(f"heads: the name {NOVELTY} is reserved for the novelty of an image; choose another")

    @property
    def weights(self) -> list[RandomWeight]:
        """The random weights, once each."""
        return find_random_weights(self.network)

    @property
    def heads_left_out(self) -> list[str]:
        """The heads that no random weight changes while it changes others; auxiliary ones may be so.

        Their spread between draws would be zero, which a bundle would have to state as knowledge.
        """
        if not self.weights:
            return []
        constant = self._parts.constant_heads
        return [head.name for head in self.heads if head.name in constant and not head.auxiliary]

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
        return ConstantHandler(compute_weights(self.network, self.draw_handlers(seed, [index], 1)[0]))

    def draw_handlers(self, seed: tf.Tensor | int, indices: tf.Tensor | Sequence[int], count: int) -> list[Handler]:
        """Returns handlers of `count` draws (seed, indices[i]); makes the noise of all draws and weights at once."""
        indices = tf.convert_to_tensor(indices, tf.int32)
        return list(make_draw_handlers(self.network, seed, indices, count, self.tuned))

    def draw_handler(self, seed: tf.Tensor, index: tf.Tensor) -> Handler:
        """Returns the handler of draw (seed, index), int32 scalars; use it in the function that creates it."""
        return self.draw_handlers(seed, index[None], 1)[0]

    def channels(self, images: tf.Tensor, training: bool = False) -> Channels:
        """Returns each head's channels under the active handler, before calibration, float32."""
        return _to_float32(self.network(images, training=training))

    def moments(self, images: tf.Tensor) -> dict[str, Moments]:
        """Returns each head's calibrated moments under the active handler, from the whole network."""
        return self.calibrated_moments(self.channels(images))

    def moments_and_novelty(self, images: tf.Tensor) -> tuple[dict[str, Moments], dict[str, tf.Tensor]]:
        """Returns each head's calibrated moments, and the novelty, from one pass through the whole network.

        Use a handler of the posterior mean. The novelty is as in `score_stages`.
        """
        if self.novelty is None:
            return self.moments(images), {}
        channels, stages = self._parts.with_stages(images, training=False)
        return self.calibrated_moments(_to_float32(channels)), self.score_stages(as_list(stages))

    def shared_features(self, images: tf.Tensor) -> Features:
        """Computes the deterministic features that all draws share."""
        with use_handler(MeanHandler()):
            return as_list(self._parts.shared(images, training=False))

    def novelty_from(self, features: Features) -> dict[str, tf.Tensor]:
        """Returns the novelty from shared features, as in `score_stages`; use a handler of the posterior mean."""
        if self.novelty is None:
            return {}
        return self.score_stages(self._parts.compute_stages(features))

    def score_stages(self, stages: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns the novelty from the features of each stage; empty if there is none.

        `score` and `p_value`, [batch], and of a model with a map `map`, [batch, height, width].
        """
        if self.novelty is None:
            return {}
        by_id = {id(tensor): values for tensor, values in zip(self.stages, stages, strict=True)}
        pooled, positions = ([by_id[id(tensor)] for tensor in tensors] for tensors in self._stages_by_use)
        score = self.novelty.score(pool_stages(pooled, self.novelty.stages))
        novelty = {"score": score, "p_value": self.novelty.p_value(score)}
        return novelty | ({"map": self.novelty.map.score(positions)} if self.novelty.map else {})

    def channels_from(self, features: Features) -> Channels:
        """Returns each head's channels under the active handler, before calibration, from shared features."""
        return _to_float32(self._parts.compute_channels(features))

    def moments_from(self, features: Features) -> dict[str, Moments]:
        """Returns each head's calibrated moments under the active handler, from shared features."""
        return self.calibrated_moments(self.channels_from(features))

    def combine_draws(self, features: Features, handlers: Sequence[Handler]) -> dict[str, dict[str, tf.Tensor]]:
        """Returns each head's quantities over the draws of some handlers, from shared features."""
        draws = map_draws(features, handlers, self.channels_from)
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

    def without_novelty_map(self) -> Model:
        """Returns the model without the novelty of positions; that of images stays."""
        if self.novelty is None or self.novelty.map is None:
            return self
        return dataclasses.replace(self, novelty=dataclasses.replace(self.novelty, map=None))

    def check_stages(self) -> None:
        """Raises KeyError or ValueError if the network lacks a stage of novelty, or has others of its name."""
        if self.novelty is None:
            return
        pooled, positions = self._stages_by_use
        pairs = list(zip(self.novelty.stages, pooled, strict=True))
        for group, distance in zip(join_sets(self.novelty.stages, pairs), self.novelty.distances, strict=True):
            features = sum(count_features(ref, tensor) for ref, tensor in group)
            if features != len(distance.centre):
                raise ValueError(f"stage {group[0][0]} has {features} features, not {len(distance.centre)}")
        if self.novelty.map is None:
            return
        for ref, tensor, distance in zip(self.novelty.map.stages, positions, self.novelty.map.distances, strict=True):
            if tensor.shape[1:-1] != positions[0].shape[1:-1] or len(tensor.shape) != 4:
                raise ValueError(f"stage {ref} of the map has the sides {list(tensor.shape[1:-1])}")
            if tensor.shape[-1] != len(distance.centre):
                raise ValueError(f"stage {ref} of the map has {tensor.shape[-1]} features, not {len(distance.centre)}")

    @cached_property
    def _parts(self) -> NetworkParts:
        """The network cut where the first random weights come in."""
        return NetworkParts(self.network, self.stages)

    @cached_property
    def stages(self) -> list[keras.KerasTensor]:
        """The tensors whose features novelty compares, each once."""
        pooled, positions = self._stages_by_use
        return list({id(tensor): tensor for tensor in (*pooled, *positions)}.values())

    @cached_property
    def _stages_by_use(self) -> tuple[list[keras.KerasTensor], list[keras.KerasTensor]]:
        """The tensors that the novelty of an image pools over positions, and those whose positions its map compares."""
        if self.novelty is None:
            return [], []
        network = self.without_auxiliary().network
        positions = self.novelty.map.stages if self.novelty.map else ()
        return stage_tensors(network, self.novelty.stages), stage_tensors(network, positions)

    @property
    def map_sides(self) -> list[int | None]:
        """The sides of the map of novelty; only for a model that has one."""
        return list(self._stages_by_use[1][0].shape[1:-1])


def map_draws(features: Any, handlers: Sequence[Handler], evaluate: Callable[[Any], T]) -> list[T]:
    """Evaluates a function of the shared features under each handler.

    features: of a model, or of an ensemble. evaluate: a method of it such as `channels_from` or `moments_from`.
    """
    results = []
    for handler in handlers:
        with use_handler(handler):
            results.append(evaluate(features))
    return results


def compile_answer(model: Model, seed: int, draws: int) -> Callable[[tf.Tensor], dict[str, dict[str, tf.Tensor]]]:
    """Compiles a function of raw images that returns each head's quantities over `draws` draws of a seed."""

    def answer(images: tf.Tensor) -> dict[str, dict[str, tf.Tensor]]:
        return model.combine_draws(model.shared_features(images), model.draw_handlers(seed, tf.range(draws), draws))

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
