"""The steps of an export, and about what each costs, from which follows how much of it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from probrt.exporter.formats import GraphSpec
from probrt.runtime.bundle.manifest import Format

StepKind = Literal[
    "bank", "tuning", "savedmodel", "trace", "tflite", "onnx", "derive", "int8", "check", "check signature", "finish"
]

# Seconds on two busy cores for small networks: only their proportions count.
COSTS: dict[StepKind, float] = {
    "bank": 15.0,
    "tuning": 15.0,
    "savedmodel": 10.0,
    "trace": 1.2,
    "tflite": 1.5,
    "onnx": 3.5,
    "derive": 0.2,
    "int8": 1.5,
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


def list_kinds(graphs: Iterable[GraphSpec], copied: bool) -> list[StepKind]:
    """Returns the kind of step that each file of one graph is.

    The first file of a format is converted, and the others are made of it. copied: whether the graph is made of that
    of an earlier chunk, so that none is converted.
    """
    kinds: list[StepKind] = []
    converted: set[Format] = {"tflite", "onnx"} if copied else set()
    for graph in graphs:
        derived: StepKind = "derive" if graph.precision.whole_graph else "int8"
        kinds.append(derived if graph.format in converted else _conversion(graph.format))
        converted.add(graph.format)
    return kinds


def _conversion(format: Format) -> StepKind:
    return "onnx" if format == "onnx" else "tflite"


def estimate_cost(
    graphs: Sequence[GraphSpec], parts: int, *, copies: bool, saved_model: bool, bank: bool, tuning: bool
) -> float:
    """Returns what the steps of an export cost together.

    parts: the chunks of the bank. copies: whether those after the first are made of it. saved_model: whether one is
    written. bank, tuning: whether its draws are chosen, tuned.
    """
    total = COSTS["finish"] + bank * COSTS["bank"] + tuning * COSTS["tuning"]
    if saved_model:
        total += COSTS["savedmodel"] + _SIGNATURES * COSTS["check signature"]
    for variant in {graph.variant for graph in graphs}:
        same_variant = [graph for graph in graphs if graph.variant == variant]
        for part in range(parts if variant == "draws" else 1):
            copied = copies and part > 0
            total += COSTS["derive" if copied else "trace"] + len(same_variant) * COSTS["check"]
            total += sum(COSTS[kind] for kind in list_kinds(same_variant, copied))
    return total
