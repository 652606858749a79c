"""Puts heads on the outputs of a finished network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import msgspec

from probrt.runtime.errors import ConfigError
from probrt.trainer.extensions import tag_of
from probrt.trainer.heads import AnyHead, Bernoulli, Categorical, Laplace, Normal, StudentT
from probrt.trainer.layers.split import HeadSplit

_SUPPORTED = (Categorical, Bernoulli, Normal, Laplace, StudentT)
_VALUES = (Normal, Laplace, StudentT)


def fit_heads(heads: Sequence[AnyHead], outputs: Sequence[keras.KerasTensor]) -> tuple[AnyHead, ...]:
    """Returns the heads with the parametrisation that the outputs' channels call for.

    A head of real values whose outputs are values alone learns one scale for all images. Raises ConfigError if the
    channels do not fit, or for a likelihood that a finished model cannot have.
    """
    for head in heads:
        if type(head) not in _SUPPORTED:
            names = ", ".join(tag_of(kind) for kind in _SUPPORTED)
            raise ConfigError(f"heads: {head.name}: a finished model can have the likelihoods {names}")
    if len(outputs) == 1:
        learned = [_learn_scale(head) for head in heads]
        for chosen in (heads, learned):
            if sum(head.channels for head in chosen) == outputs[0].shape[-1]:
                return tuple(chosen)
        expected = " or ".join(str(sum(head.channels for head in chosen)) for chosen in (heads, learned))
        raise ConfigError(
            f"heads: the model's output has {outputs[0].shape[-1]} channels, the heads need "
            f"{expected if heads != learned else expected.split()[0]}: one per label of a categorical head"
        )
    return tuple(fit_heads([head], [output])[0] for head, output in zip(heads, outputs, strict=True))


def attach_heads(
    output: keras.KerasTensor, heads: Sequence[AnyHead], log_scales: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    """Returns the channels of each head of an output, which holds logits or values in the targets' units.

    heads: with the centre and spread of their targets. log_scales: by head, the scales that it starts to learn from.
    """
    pairs = [pair for head in heads for pair in _standardise(head)]
    name = heads[0].name if len(heads) == 1 else "all"
    if any(pair != (1.0, 0.0) for pair in pairs):
        factors, offsets = ([pair[side] for pair in pairs] for side in (0, 1))
        rescale = keras.layers.Rescaling(factors, offsets, name=f"standardised_{name}")
        output = rescale(output)
    split = HeadSplit(
        [(head.name, head.channels, int(head.per_position)) for head in heads],
        {head.name: log_scales.get(head.name, head.learned) for head in heads if head.learned},
        name=f"heads_{name}",
    )
    channels: dict[str, Any] = split(output)
    return channels


def _learn_scale(head: AnyHead) -> AnyHead:
    is_open = isinstance(head, _VALUES) and head.scale == "predicted"
    return msgspec.structs.replace(head, scale="learned") if is_open else head


def _standardise(head: AnyHead) -> list[tuple[float, float]]:
    """Returns a factor and an offset for each channel, from the targets' units to a head's own."""
    if not isinstance(head, _VALUES):
        return [(1.0, 0.0)] * head.channels
    pairs = [(1 / spread, -centre / spread) for centre, spread in zip(head.centre, head.spread, strict=True)]
    if head.channels > head.size:  # the model's own logarithms of scales
        pairs += [(1.0, -math.log(spread)) for spread in head.spread]
    return pairs
