"""Builds a model from its parts: scaled images, a backbone, and on each stage one final convolution for its heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import ConfigError
from probrt.trainer.backbones import BACKBONES, AnyBackbone, Stage
from probrt.trainer.heads import HEADS, AnyHead, Own
from probrt.trainer.layers.split import HeadSplit
from probrt.trainer.layers.weight_settings import WeightSettings
from probrt.trainer.model import Model, own_layer_name

Sides = Sequence[int | None]


def build_model(
    name: str,
    input: Input,
    heads: Sequence[AnyHead],
    *,
    backbone: AnyBackbone,
    weights: WeightSettings,
    final_kernel: int = 1,
) -> Model:
    """Returns a new model: scaled images, the backbone, and on each stage that heads read one final convolution.

    The channels of a final convolution are split among the heads that have no layers of their own. final_kernel: side
    of its window. Raises ConfigError for a stage that the backbone lacks, a head that its stage cannot serve, or a head
    without random weights beside others with some.
    """
    _check_classes(backbone, heads)
    images = keras.Input(input.shape, name="images")
    sides = input.shape[:-1]
    stages = backbone.stages(_scale(images, input), weights)
    last_stage = list(stages)[-1]
    sharing: dict[tuple[str, bool], list[AnyHead]] = {}
    outputs: dict[str, Any] = {}
    for head in heads:
        stage = head.stage or last_stage
        if stage not in stages:
            raise ConfigError(f"heads: {head.name}: no stage {stage!r}; the backbone has {', '.join(stages)}")
        if head.own is None:
            sharing.setdefault((stage, head.auxiliary), []).append(head)
        else:
            outputs |= _apply_own_layers(head, head.own, stages[stage], weights=weights, sides=sides)
    for (stage, auxiliary), group in sharing.items():
        suffix = "" if stage == last_stage and not auxiliary else f"_{stage}{'_aux' * auxiliary}"
        features = stages[stage].features
        split = _make_split(group, stages[stage], sides, "heads" + suffix)
        final = weights.conv(_rank(features), split.channels, final_kernel, "final" + suffix)
        outputs |= split(final(features))
    ordered = {head.name: outputs[head.name] for head in heads}
    model = Model(name, input, tuple(heads), keras.Model(images, ordered, name="network"))
    if left_out := model.heads_left_out:
        raise ConfigError(
            f"heads: {', '.join(left_out)}: reads no layer with random weights, while other heads do; give its layers "
            'some (weights.bayesian, own.weights), or set bayesian = "none" for all'
        )
    return model


def _check_classes(backbone: AnyBackbone, heads: Sequence[AnyHead]) -> None:
    """Raises ConfigError for a class that could not come back from a saved model."""
    if fault := BACKBONES.explain_fault(type(backbone)):
        raise ConfigError(f"backbone: {fault}")
    for head in heads:
        if fault := HEADS.explain_fault(type(head)):
            raise ConfigError(f"heads: {head.name}: {fault}")


def _scale(images: keras.KerasTensor, input: Input) -> keras.KerasTensor:
    """Scales images to values from 0 to 1, or to about mean 0 and variance 1 per channel if the range is unknown."""
    if input.range is None:
        normalise = keras.layers.BatchNormalization(
            momentum=0.9, center=False, scale=False, synchronized=True, name="unit"
        )
        return normalise(images)
    low, high = input.range
    return keras.layers.Rescaling(1.0 / (high - low), -low / (high - low), name="unit")(images)


def _apply_own_layers(
    head: AnyHead, own: Own, stage: Stage, *, weights: WeightSettings, sides: Sides
) -> Mapping[str, Any]:
    """Returns the channels of a head that has layers of its own."""
    weights = own.weights or weights
    features, rank = stage.features, _rank(stage.features)
    for index, width in enumerate(own.widths, start=1):
        conv = weights.conv(rank, width, own.kernel, own_layer_name(head, f"conv{index}"))
        activate = keras.layers.Activation(own.activation, name=own_layer_name(head, f"{own.activation}{index}"))
        features = activate(conv(features))
    split = _make_split([head], stage, sides, own_layer_name(head, "split"))
    final = weights.conv(rank, split.channels, own.final_kernel, own_layer_name(head, "final"))
    channels: Mapping[str, Any] = split(final(features))
    return channels


def _make_split(heads: Sequence[AnyHead], stage: Stage, sides: Sides, name: str) -> HeadSplit:
    return HeadSplit(
        [(head.name, head.channels, _upsampling(head, stage, sides)) for head in heads],
        {head.name: head.learned for head in heads if head.learned},
        name=name,
    )


def _upsampling(head: AnyHead, stage: Stage, sides: Sides) -> int:
    """Returns the factor from the stage's positions to the image's pixels; 0 for a pooled head."""
    if not head.per_position:
        return 0
    if not _rank(stage.features):
        raise ConfigError(f"heads: {head.name}: per_position needs a feature map, and its stage has feature vectors")
    fixed = [side for side in sides if side is not None]
    if stage.stride > 1 and (len(sides) != 2 or len(fixed) != 2):
        raise ConfigError(
            f"heads: {head.name}: a head per position on a stage of stride {stage.stride} needs fixed two-dimensional "
            'images; use a backbone that keeps the size, such as "unet"'
        )
    if stage.stride > 1 and any(side % stage.stride for side in fixed):
        raise ConfigError(
            f"heads: {head.name}: a head per position on a stage of stride {stage.stride} needs sides that it divides, "
            f'not {list(sides)}; resize the images, or use a backbone that keeps the size, such as "unet"'
        )
    return stage.stride


def _rank(features: keras.KerasTensor) -> int:
    """Returns the number of position axes: 0 for feature vectors."""
    return len(features.shape) - 2
