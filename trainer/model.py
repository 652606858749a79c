"""A probabilistic model: one network, several heads, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf

from probrt.runtime.errors import ConfigError
from probrt.runtime.manifest import Calibration, Input
from probrt.trainer.backbones import AnyBackbone, Stage, Weights
from probrt.trainer.heads import AnyHead, Moments
from probrt.trainer.layers.split import HeadSplit
from probrt.trainer.weights import RandomWeight, random_weights


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

    def channels(self, images: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """Each head's channels under the reading in force, before calibration, float32."""
        answers = self.network(images, training=training)
        return {name: tf.cast(channels, tf.float32) for name, channels in answers.items()}

    def moments(self, images: tf.Tensor) -> dict[str, Moments]:
        """Each head's calibrated moments under the reading in force."""
        answers = self.channels(images)
        return {head.name: head.moments(self._calibrated(head, answers[head.name])) for head in self.heads}

    def positions(self, head: AnyHead) -> list[int | None]:
        """The sides of a head's answers after the batch; none for a pooled head."""
        return list(self.network.output[head.name].shape[1:-1]) if head.per_position else []

    def _calibrated(self, head: AnyHead, channels: tf.Tensor) -> tf.Tensor:
        for found in self.calibration:
            if found.head == head.name:
                return head.calibrated(channels, found.temperature, found.scale)
        return channels


def build(
    name: str, input: Input, heads: Sequence[AnyHead], backbone: AnyBackbone, weights: Weights, final_kernel: int = 1
) -> Model:
    """A new model: images scaled to [0, 1], the backbone, and one final convolution split among the heads."""
    images = keras.Input(input.shape, name="images")
    features = images
    if input.range is not None:
        low, high = input.range
        features = keras.layers.Rescaling(1.0 / (high - low), -low / (high - low), name="unit")(images)
    last = list(backbone.stages(features, weights).values())[-1]
    split = HeadSplit(
        [(head.name, head.channels, _upsampling(head, last)) for head in heads],
        {head.name: head.learned for head in heads if head.learned},
        name="heads",
    )
    rank = len(input.shape) - 1
    final = weights.conv(rank, split.channels, final_kernel, "final")(last.features)
    return Model(name, input, tuple(heads), keras.Model(images, split(final), name="network"))


def _upsampling(head: AnyHead, stage: Stage) -> int:
    if not head.per_position:
        return 0
    sides = stage.features.shape[1:-1]
    if stage.stride > 1 and (len(sides) != 2 or None in sides):
        raise ConfigError(
            f"heads: {head.name}: a head per position on a stage of stride {stage.stride} needs fixed two-dimensional "
            "images; use a backbone that keeps the size"
        )
    return stage.stride
