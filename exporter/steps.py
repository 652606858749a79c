"""The steps of an export, and about what each costs, from which follows how much of it is done."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from probrt.exporter.formats import GraphSpec

StepKind = Literal["bank", "tuning", "savedmodel", "trace", "tflite", "onnx", "check", "check signature", "finish"]

# Seconds on two busy cores for small networks: only their proportions count.
COSTS: dict[StepKind, float] = {
    "bank": 15.0,
    "tuning": 15.0,
    "savedmodel": 10.0,
    "trace": 1.2,
    "tflite": 3.0,
    "onnx": 3.5,
    "check": 0.5,
    "check signature": 2.5,
    "finish": 0.5,
}
_SIGNATURES = 5  # that are checked


@dataclass
class Steps:
    """Reports each step with the share of all that is done.

    total: what all steps cost. on_step: takes the step in words and the share, 0 to 1.
    """

    total: float
    on_step: Callable[[str, float], None]
    _done: float = 0.0
    _current: float = 0.0

    def begin(self, text: str, kind: StepKind) -> None:
        """Ends the step before, and begins one."""
        self._done += self._current
        self._current = COSTS[kind]
        self.on_step(text, min(1.0, self._done / self.total))


def estimate_cost(
    graphs: Iterable[GraphSpec], draws: int, chunk: int, *, saved_model: bool, bank: bool, tuning: bool
) -> float:
    """Returns what the steps of an export cost together.

    draws, chunk: of the bank. saved_model: whether one is written. bank, tuning: whether its draws are chosen, tuned.
    """
    total = COSTS["finish"] + bank * COSTS["bank"] + tuning * COSTS["tuning"]
    if saved_model:
        total += COSTS["savedmodel"] + _SIGNATURES * COSTS["check signature"]
    traced = set()
    for graph in graphs:
        parts = math.ceil(draws / chunk) if graph.variant == "draws" else 1
        total += parts * (COSTS[graph.format] + COSTS["check"])
        if graph.variant not in traced:
            total += parts * COSTS["trace"]
            traced.add(graph.variant)
    return total
