"""Assembles a model from a finished network: raw images, the pixel values it takes, its layers, and heads."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from probrt.runtime.bundle.manifest import Input
from probrt.trainer.adopt.attach import attach_heads
from probrt.trainer.adopt.compare import score_model
from probrt.trainer.adopt.pixel_values import WAYS, list_ways
from probrt.trainer.calibration.calibrate import predict_examples
from probrt.trainer.data import Examples
from probrt.trainer.heads import AnyHead, RealHead
from probrt.trainer.keras_internals import inline_layers
from probrt.trainer.model import Model

# Examples that choose the pixel values.
_TRIED = 256


@dataclass(frozen=True)
class Assembly:
    """A network on raw images and its outputs, logits or values in the targets' units, before the heads.

    groups: the heads of each output. log_scales: by head, the scales that are learned for all images, as they start.
    """

    name: str
    input: Input
    groups: tuple[tuple[AnyHead, ...], ...]
    images: keras.KerasTensor
    outputs: tuple[keras.KerasTensor, ...]
    log_scales: dict[str, list[float]] = dataclasses.field(default_factory=dict)

    @property
    def heads(self) -> tuple[AnyHead, ...]:
        """The heads of all outputs, in their order."""
        return tuple(head for group in self.groups for head in group)

    @property
    def network(self) -> keras.Model:
        """The network from raw images to the outputs."""
        return keras.Model(self.images, list(self.outputs))

    def to_channels(self, place: int) -> keras.Model:
        """Returns a network from one output to its heads' channels."""
        output = keras.Input(self.outputs[place].shape[1:])
        return keras.Model(output, attach_heads(output, self.groups[place], self.log_scales))

    def model(self) -> Model:
        """Returns the model with its heads."""
        channels: dict[str, Any] = {}
        for output, group in zip(self.outputs, self.groups, strict=True):
            channels |= attach_heads(output, group, self.log_scales)
        ordered = {head.name: channels[head.name] for head in self.heads}
        return Model(self.name, self.input, self.heads, keras.Model(self.images, ordered, name="network"))


def assemble(
    network: keras.Model, groups: Sequence[Sequence[AnyHead]], *, name: str, input: Input, way: str
) -> Assembly:
    """Connects a network to raw images, whose pixel values it takes in one of WAYS."""
    images = keras.Input(input.shape, name="images")
    outputs = inline_layers(network, WAYS[way](images), lambda layer: False)
    outputs = tuple(outputs) if isinstance(outputs, list | tuple) else (outputs,)
    return Assembly(name, input, tuple(tuple(group) for group in groups), images, outputs)


def choose_values(
    network: keras.Model,
    groups: Sequence[Sequence[AnyHead]],
    examples: Examples,
    *,
    name: str,
    input: Input,
    values: str,
) -> tuple[Assembly, str]:
    """Returns the assembly with the pixel values for which the network predicts the labels best, and what they are."""
    ways = list_ways(values, input.shape[-1], input.colour != "none" and input.range == (0.0, 255.0))
    tried = take(examples, np.linspace(0, len(examples) - 1, min(_TRIED, len(examples))).astype(int))
    losses = {}
    assemblies = {way: assemble(network, groups, name=name, input=input, way=way) for way in ways}
    for way in ways if len(ways) > 1 else ():
        scores = score_model(assemblies[way].model(), tried, seed=0)
        loss = sum(score["NLL"] for score in scores.values())
        losses[way] = loss if math.isfinite(loss) else math.inf
    best, *others = sorted(ways, key=lambda way: losses.get(way, 0.0))
    comparison = f" (NLL {losses[best]:.3g}; next {others[0]}, {losses[others[0]]:.3g})" if others else ""
    return assemblies[best], best + comparison


def measure_scales(assembly: Assembly, examples: Examples, seed: int) -> Assembly:
    """Returns the assembly with the scales of its errors on examples, for heads that have one scale for all images."""
    learned = [head for head in assembly.heads if isinstance(head, RealHead) and head.learned]
    if not learned:
        return assembly
    answers = predict_examples(assembly.model(), examples, seed, draws=1)
    scales = {}
    for head in learned:
        error = answers[head.name]["mean"] - examples.targets[head.name]
        deviation = np.sqrt(np.nanmean(np.square(error.reshape(-1, head.size)), axis=0)) / np.asarray(head.spread)
        scales[head.name] = np.log(np.maximum(deviation, 1e-3)).tolist()
    return dataclasses.replace(assembly, log_scales=scales)


def take(examples: Examples, rows: np.ndarray) -> Examples:
    """Returns some of the examples."""
    targets = {name: values[rows] for name, values in examples.targets.items()}
    return Examples(tuple(examples.files[row] for row in rows), examples.images[rows], targets)
