"""The weights of a bank's draws as variables of the SavedModel: a graph reads them in place of making them per call.

Variables rather than constants: a loader keeps several copies of a graph with its constants, but one of a variable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from probrt.exporter.exportable import Exportable
from probrt.exporter.member_handlers import MemberHandler
from probrt.trainer.variational.handlers import ConstantHandler, Handler, ValueHandler

# Larger banks make a SavedModel, and the memory of its server, larger than speed is worth.
MAX_BYTES = 64 << 20


class StoredDraws:
    """Draws (seed, indices[i]) of a model, stored by member and random weight as float32 [draws of it, *shape].

    Create it outside a trace. Its `variables` belong into the module that is saved.
    """

    def __init__(self, model: Exportable, seed: int, indices: Sequence[int]) -> None:
        self._places: dict[int, list[int]] = {}  # of each member's draws among all
        values: dict[int, list[dict[int, np.ndarray]]] = {}
        for place, index in enumerate(indices):
            member, weights = _read_constants(model.constant_draw_handler(seed, index))
            self._places.setdefault(member, []).append(place)
            values.setdefault(member, []).append(weights)
        self._count = len(indices)
        self._in_ensemble = len(model.members) > 1
        self._stacks = {
            member: {
                id: tf.Variable(np.stack([draw[id] for draw in draws]), trainable=False, name=f"draws_{member}_{id}")
                for id in draws[0]
            }
            for member, draws in values.items()
        }

    @property
    def variables(self) -> list[tf.Variable]:
        """The variables to save with the graph."""
        return [variable for stacks in self._stacks.values() for variable in stacks.values()]

    def handlers(self) -> list[Handler]:
        """Returns the handler of each draw; call it inside the graph."""
        handlers: dict[int, Handler] = {}
        for member, places in self._places.items():
            # TensorFlow copies nothing here where the weights of a draw fill whole lines of memory.
            by_id = {id: tf.unstack(tf.convert_to_tensor(stack)) for id, stack in self._stacks[member].items()}
            for draw, place in enumerate(places):
                handler = ValueHandler({id: values[draw] for id, values in by_id.items()})
                handlers[place] = MemberHandler(member, handler) if self._in_ensemble else handler
        return [handlers[place] for place in range(self._count)]


def store_draws(model: Exportable, seed: int, indices: Sequence[int]) -> StoredDraws | None:
    """Stores draws (seed, indices[i]) if they take at most MAX_BYTES, else returns None."""
    # In an ensemble each draw has the weights of one member.
    elements = sum(math.prod(weight.shape) for weight in model.weights)
    too_large = 4 * elements * len(indices) > MAX_BYTES * len(model.members)
    return None if too_large else StoredDraws(model, seed, indices)


def _read_constants(handler: Handler) -> tuple[int, dict[int, np.ndarray]]:
    """Returns the member (0 for a model alone) and the weights, by id, that a handler of constants holds."""
    match handler:
        case MemberHandler(member, ConstantHandler(values)):
            return member, dict(values)
        case ConstantHandler(values):
            return 0, dict(values)
    raise TypeError(f"{type(handler).__name__} holds no constant weights")
