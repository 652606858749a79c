"""A probabilistic model: one network, several heads, calibration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import tensorflow as tf

from probrt.runtime.bundle.manifest import Calibration, Input
from probrt.runtime.errors import ConfigError
from probrt.trainer.backbones import AnyBackbone, Stage, Weights
from probrt.trainer.heads import AnyHead, Moments, moments
from probrt.trainer.layers.split import HeadSplit
from probrt.trainer.variational.weights import (
    Constant,
    Mean,
    RandomWeight,
    Reading,
    constants,
    draws,
    random_weights,
    reading,
)


@dataclass(frozen=True)
class Model:
    """What training gives and export takes.

    network: Keras 3, raw images [batch, *input.shape] → {head: channels}; call it inside a reading.
    """

    name: str
    input: Input
    heads: tuple[AnyHead, ...]
    network: keras.Model
    calibration: tuple[Calibration, ...] = ()

    @property
    def weights(self) -> list[RandomWeight]:
        """The random weights, once each."""
        return random_weights(self.network)

    @property
    def members(self) -> tuple[Model, ...]:
        """The models that it is made of: itself; an ensemble has several."""
        return (self,)

    def constants(self, chosen: Reading) -> Reading:
        """The reading with every random weight computed now; call it outside a trace."""
        return Constant(constants(self.network, chosen))

    def draws(self, seed: tf.Tensor | int, indices: tf.Tensor | Sequence[int], count: int) -> list[Reading]:
        """Readings of `count` draws (seed, indices[i]); the noise is made for all of them and all weights at once."""
        return list(draws(self.network, seed, tf.convert_to_tensor(indices, tf.int32), count))

    def draw(self, seed: tf.Tensor, index: tf.Tensor) -> Reading:
        """The reading of draw (seed, index), int32 scalars; use it in the function that it is made in."""
        return self.draws(seed, index[None], 1)[0]

    def channels(self, images: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """Each head's channels under the reading in force, before calibration, float32."""
        answers = self.network(images, training=training)
        return {name: tf.cast(channels, tf.float32) for name, channels in answers.items()}

    def moments(self, images: tf.Tensor) -> dict[str, Moments]:
        """Each head's calibrated moments under the reading in force."""
        return self._moments(self.channels(images))

    def shared(self, images: tf.Tensor) -> list[tf.Tensor]:
        """What no random weight has a part in, to be computed once for all draws."""
        with reading(Mean()):
            found = self._parts[0](images, training=False)
        return list(found) if isinstance(found, list | tuple) else [found]  # Keras unwraps a list of one

    def moments_after(self, shared: list[tf.Tensor]) -> dict[str, Moments]:
        """Each head's calibrated moments under the reading in force, from what `shared` gives."""
        return self._moments(self._channels_after(shared))

    def over(self, shared: list[tf.Tensor], readings: Sequence[Reading]) -> dict[str, dict[str, tf.Tensor]]:
        """Each head's quantities over the draws of some readings, from what `shared` gives."""
        drawn = []
        for one in readings:
            with reading(one):
                drawn.append(self._channels_after(shared))
        found = {}
        for head in self.heads:
            each = [channels[head.name] for channels in drawn]
            if head.per_position:
                said = [head.moments(self._calibrated(head, channels)) for channels in each]
                found[head.name] = moments.combined(head, said)
            else:  # one small graph for all draws; maps would need the memory of all of them
                said = head.moments(self._calibrated(head, tf.concat(each, 0)))
                found[head.name] = moments.stacked(head, said, len(each))
        return found

    def _channels_after(self, shared: list[tf.Tensor]) -> dict[str, tf.Tensor]:
        drawn = self._parts[1]
        answers = drawn(shared, training=False) if drawn else dict(zip(self.network.output, shared, strict=True))
        return {name: tf.cast(channels, tf.float32) for name, channels in answers.items()}

    def _moments(self, answers: dict[str, tf.Tensor]) -> dict[str, Moments]:
        return {head.name: head.moments(self._calibrated(head, answers[head.name])) for head in self.heads}

    def positions(self, head: AnyHead) -> list[int | None]:
        """The sides of a head's answers after the batch; none for a pooled head."""
        return list(self.network.output[head.name].shape[1:-1]) if head.per_position else []

    def head_variables(self, head: AnyHead) -> list[keras.Variable]:
        """The trained variables of a head's own layers; none for one that shares the final convolution."""
        own = [layer for layer in self.network.layers if layer.name.startswith(_own_name(head, ""))]
        return [variable for layer in own for variable in layer.trainable_variables]

    def without_auxiliary(self) -> Model:
        """The model with the heads that are there to be answered."""
        heads = tuple(head for head in self.heads if not head.auxiliary)
        if len(heads) == len(self.heads):
            return self
        names = {head.name for head in heads}
        network = keras.Model(
            self.network.input, {name: self.network.output[name] for name in sorted(names)}, name=self.network.name
        )
        calibration = tuple(one for one in self.calibration if one.head in names)
        return dataclasses.replace(self, heads=heads, network=network, calibration=calibration)

    @cached_property
    def _parts(self) -> tuple[keras.Model, keras.Model | None]:
        """The network cut where the first random weights come in; None if there are none."""
        drawn: set[int] = set()
        border: dict[int, keras.KerasTensor] = {}
        for depth in sorted(self.network._nodes_by_depth, reverse=True):
            for node in self.network._nodes_by_depth[depth]:
                random = any(getattr(layer, "random_weights", ()) for layer in _layers(node.operation))
                if random or any(id(one) in drawn for one in node.input_tensors):
                    drawn |= {id(one) for one in node.outputs}
                    border |= {id(one): one for one in node.input_tensors if id(one) not in drawn}
        border |= {id(one): one for one in self.network.output.values() if id(one) not in drawn}
        cut = list(border.values())
        return keras.Model(self.network.input, cut), keras.Model(cut, self.network.output) if drawn else None

    def _calibrated(self, head: AnyHead, channels: tf.Tensor) -> tf.Tensor:
        for found in self.calibration:
            if found.head == head.name:
                return head.calibrated(channels, found.temperature, found.scale)
        return channels


def _layers(operation: Any) -> list[keras.Layer]:
    return list(operation._flatten_layers()) if isinstance(operation, keras.Layer) else []


def build(
    name: str, input: Input, heads: Sequence[AnyHead], backbone: AnyBackbone, weights: Weights, final_kernel: int = 1
) -> Model:
    """A new model: scaled images, the backbone, and on each stage that heads read one final convolution, split
    among those that have no layers of their own.

    Raises ConfigError for a stage that is not there, or a head that its stage cannot serve.
    """
    images = keras.Input(input.shape, name="images")
    stages = backbone.stages(_scaled(images, input), weights)
    last = list(stages)[-1]
    shared: dict[tuple[str, bool], list[AnyHead]] = {}
    outputs: dict[str, Any] = {}
    for head in heads:
        stage = head.stage or last
        if stage not in stages:
            raise ConfigError(f"heads: {head.name}: no stage {stage!r}; the backbone has {', '.join(stages)}")
        if head.own is None:
            shared.setdefault((stage, head.auxiliary), []).append(head)
        else:
            outputs |= _own(head, stages[stage], weights, sides=input.shape[:-1])
    for (stage, auxiliary), group in shared.items():
        name_of_final = "final" if stage == last and not auxiliary else f"final_{stage}{'_aux' * auxiliary}"
        split = _split(group, stages[stage], input.shape[:-1], "heads" + name_of_final[5:])
        rank = len(stages[stage].features.shape) - 2
        final = weights.conv(rank, split.channels, final_kernel, name_of_final)
        outputs |= split(final(stages[stage].features))
    ordered = {head.name: outputs[head.name] for head in heads}
    return Model(name, input, tuple(heads), keras.Model(images, ordered, name="network"))


def _scaled(images: keras.KerasTensor, input: Input) -> keras.KerasTensor:
    """Images from 0 to 1, or, where the input's range is not known, of about mean 0 and variance 1 per channel."""
    if input.range is None:
        return keras.layers.BatchNormalization(momentum=0.9, center=False, scale=False, synchronized=True, name="unit")(
            images
        )
    low, high = input.range
    return keras.layers.Rescaling(1.0 / (high - low), -low / (high - low), name="unit")(images)


def _own(head: AnyHead, stage: Stage, weights: Weights, sides: Sequence[int | None]) -> Mapping[str, Any]:
    own = head.own
    weights = own.weights or weights
    features, rank = stage.features, len(stage.features.shape) - 2
    for number, width in enumerate(own.widths, start=1):
        features = weights.conv(rank, width, own.kernel, _own_name(head, f"conv{number}"))(features)
        features = keras.layers.Activation(own.activation, name=_own_name(head, own.activation + str(number)))(features)
    split = _split([head], stage, sides, _own_name(head, "split"))
    return split(weights.conv(rank, split.channels, own.final_kernel, _own_name(head, "final"))(features))


def _own_name(head: AnyHead, part: str) -> str:
    # Two hyphens, because a head's name may be the beginning of another's.
    return f"head--{head.name}--{part}"


def _split(heads: Sequence[AnyHead], stage: Stage, sides: Sequence[int | None], name: str) -> HeadSplit:
    return HeadSplit(
        [(head.name, head.channels, _upsampling(head, stage, sides)) for head in heads],
        {head.name: head.learned for head in heads if head.learned},
        name=name,
    )


def _upsampling(head: AnyHead, stage: Stage, sides: Sequence[int | None]) -> int:
    if not head.per_position:
        return 0
    if len(stage.features.shape) == 2:
        raise ConfigError(f"heads: {head.name}: per_position needs a feature map, and its stage has feature vectors")
    if stage.stride > 1 and (len(sides) != 2 or None in sides):
        raise ConfigError(
            f"heads: {head.name}: a head per position on a stage of stride {stage.stride} needs fixed two-dimensional "
            'images; use a backbone that keeps the size, such as "unet"'
        )
    if stage.stride > 1 and any(side % stage.stride for side in sides):
        raise ConfigError(
            f"heads: {head.name}: a head per position on a stage of stride {stage.stride} needs sides that it divides, "
            f'not {list(sides)}; resize the images, or use a backbone that keeps the size, such as "unet"'
        )
    return stage.stride
