"""Builds a model from its parts: scaled images, a backbone, and on each stage one final convolution for its heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import ConfigError
from probrt.trainer.backbones import BACKBONES, AnyBackbone, Stage
from probrt.trainer.heads import HEADS, AnyHead
from probrt.trainer.layers.split import HeadSplit
from probrt.trainer.layers.weight_settings import WeightSettings
from probrt.trainer.model import Model, own_layer_name


def build_model(
    name: str,
    input: Input,
    heads: Sequence[AnyHead],
    backbone: AnyBackbone,
    weights: WeightSettings,
    final_kernel: int = 1,
) -> Model:
    """A new model: scaled images, the backbone, and on each stage that heads read one final convolution, split
    among those that have no layers of their own.

    Raises ConfigError for a stage that is not there, or a head that its stage cannot serve.
    """
    _check_classes(backbone, heads)
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


def _check_classes(backbone: AnyBackbone, heads: Sequence[AnyHead]) -> None:
    """Raises ConfigError for a class that could not come back from a saved model."""
    if fault := BACKBONES.explain_fault(type(backbone)):
        raise ConfigError(f"backbone: {fault}")
    for head in heads:
        if fault := HEADS.explain_fault(type(head)):
            raise ConfigError(f"heads: {head.name}: {fault}")


def _scaled(images: keras.KerasTensor, input: Input) -> keras.KerasTensor:
    """Images from 0 to 1, or, where the input's range is not known, of about mean 0 and variance 1 per channel."""
    if input.range is None:
        return keras.layers.BatchNormalization(momentum=0.9, center=False, scale=False, synchronized=True, name="unit")(
            images
        )
    low, high = input.range
    return keras.layers.Rescaling(1.0 / (high - low), -low / (high - low), name="unit")(images)


def _own(head: AnyHead, stage: Stage, weights: WeightSettings, sides: Sequence[int | None]) -> Mapping[str, Any]:
    own = head.own
    weights = own.weights or weights
    features, rank = stage.features, len(stage.features.shape) - 2
    for number, width in enumerate(own.widths, start=1):
        features = weights.conv(rank, width, own.kernel, own_layer_name(head, f"conv{number}"))(features)
        features = keras.layers.Activation(own.activation, name=own_layer_name(head, own.activation + str(number)))(
            features
        )
    split = _split([head], stage, sides, own_layer_name(head, "split"))
    return split(weights.conv(rank, split.channels, own.final_kernel, own_layer_name(head, "final"))(features))


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
