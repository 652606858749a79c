"""The parts of a network: what all draws share, what each draw computes anew, and the stages that novelty compares."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import keras
import tensorflow as tf

from probrt.trainer.keras_internals import flatten_layers, nodes_in_order

Features = list[tf.Tensor]


class NetworkParts:
    """A network cut where the first random weights come in.

    network: raw images → {head: channels}.
    stages: tensors of the network whose features are wanted beside its answers, each once. Those before the cut, which
        no draw changes, belong to the shared features, after what the later part reads.
    """

    def __init__(self, network: keras.Model, stages: Sequence[keras.KerasTensor]) -> None:
        self.network = network
        self.stages = list(stages)
        self._cut, self._has_random = _find_cut(network, self.stages)

    @property
    def shared(self) -> keras.Model:
        """From images to the features that all draws share."""
        return self._halves[0]

    @property
    def drawn(self) -> keras.Model | None:
        """From the shared features to the channels that random weights change; None if there are no random weights."""
        return self._halves[1]

    @cached_property
    def _halves(self) -> tuple[keras.Model, keras.Model | None]:
        """Made together, because Keras numbers networks as they come, and graphs hold the numbers."""
        shared = keras.Model(self.network.input, self._cut)
        return shared, keras.Model(self._cut, self._drawn_outputs) if self._has_random else None

    @cached_property
    def with_stages(self) -> keras.Model:
        """The whole network with its stages as a second output."""
        return keras.Model(self.network.input, [self.network.output, self.stages])

    def compute_channels(self, features: Features) -> dict[str, tf.Tensor]:
        """Returns each head's channels from the shared features, under the active handler."""
        values = dict(zip(map(id, self._cut), features, strict=True))
        drawn = self.drawn(features, training=False) if self.drawn is not None else {}
        return {
            head: drawn[head] if head in drawn else values[id(tensor)] for head, tensor in self.network.output.items()
        }

    def compute_stages(self, features: Features) -> Features:
        """Returns the stages from the shared features, under the active handler."""
        values = dict(zip(map(id, self._cut), features, strict=True))
        if self._later_stages is not None:
            later = as_list(self._later_stages(features, training=False))
            values |= dict(zip(map(id, self._stages_after_cut), later, strict=True))
        return [values[id(tensor)] for tensor in self.stages]

    @property
    def constant_heads(self) -> list[str]:
        """The heads that no random weight changes."""
        return [head for head in self.network.output if head not in self._drawn_outputs]

    @property
    def _drawn_outputs(self) -> dict[str, keras.KerasTensor]:
        """The outputs that a draw changes: Keras builds no model that gives an inner tensor back as it is."""
        cut = {id(tensor) for tensor in self._cut}
        return {head: tensor for head, tensor in self.network.output.items() if id(tensor) not in cut}

    @property
    def _stages_after_cut(self) -> list[keras.KerasTensor]:
        """The stages that a draw changes; those at the cut are inputs already."""
        cut = {id(tensor) for tensor in self._cut}
        return [tensor for tensor in self.stages if id(tensor) not in cut]

    @cached_property
    def _later_stages(self) -> keras.Model | None:
        """From the shared features to the stages behind them; None if there are none."""
        return keras.Model(self._cut, self._stages_after_cut) if self._stages_after_cut else None


def as_list(tensors: Any) -> list[tf.Tensor]:
    """Returns a network's outputs as a list: Keras unwraps a list of one."""
    return list(tensors) if isinstance(tensors, list | tuple) else [tensors]


def _find_cut(network: keras.Model, stages: Sequence[keras.KerasTensor]) -> tuple[list[keras.KerasTensor], bool]:
    """Returns the tensors at which a network is cut, and whether random weights follow."""
    random: set[int] = set()
    border: dict[int, keras.KerasTensor] = {}
    for node in nodes_in_order(network):
        has_weights = any(getattr(layer, "random_weights", ()) for layer in flatten_layers(node.operation))
        if has_weights or any(id(tensor) in random for tensor in node.inputs):
            random |= {id(tensor) for tensor in node.outputs}
            border |= {id(tensor): tensor for tensor in node.inputs if id(tensor) not in random}
    border |= {id(tensor): tensor for tensor in network.output.values() if id(tensor) not in random}
    border |= {id(tensor): tensor for tensor in stages if id(tensor) not in random}
    return list(border.values()), bool(random)
