"""The answer of a batch while its calls are made."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from probrt.runtime.engines.graph import Outputs
from probrt.runtime.predict.answer import Novelty, Prediction, join_novelties, make_answer, read_novelty
from probrt.runtime.predict.combine import Combiner, Quantities, stack_combiners


@dataclass
class RunningAnswer:
    """What some calls have answered for a batch: the state of each head's draws, and the novelty once it is known.

    Not every call gives the novelty; it depends on no draw, so the first value counts.
    """

    combiners: list[Combiner]
    novelty: Novelty | None = None

    @property
    def draws(self) -> int:
        """The number of draws so far."""
        return self.combiners[0].draws

    def add(self, outputs: Outputs, draws: int) -> None:
        """Adds the outputs of one call over `draws` draws."""
        for combiner in self.combiners:
            combiner.add(outputs, draws)
        self.novelty = self.novelty or read_novelty(outputs)

    def combine(self) -> dict[str, Quantities]:
        """Returns each head's quantities by name, over all draws so far."""
        return {combiner.head.name: combiner.combine() for combiner in self.combiners}

    def select(self, rows: npt.NDArray[np.intp]) -> Self:
        """Returns the same state for some rows of the batch."""
        novelty = self.novelty.select(rows) if self.novelty else None
        return type(self)([combiner.select(rows) for combiner in self.combiners], novelty)

    def make_prediction(self, quantities: dict[str, Quantities], count: int) -> Prediction:
        """Returns the prediction for a batch of `count` images from what `combine` returned."""
        heads = {head: make_answer(values) for head, values in quantities.items()}
        return Prediction(heads, np.full(count, self.draws, np.int32), self.novelty)


def stack_answers(answers: Sequence[RunningAnswer]) -> RunningAnswer:
    """Returns one state for the rows of several, in their order, of the same heads and number of draws."""
    combiners = [stack_combiners(states) for states in zip(*(answer.combiners for answer in answers), strict=True)]
    parts = [answer.novelty for answer in answers if answer.novelty is not None]
    return RunningAnswer(combiners, join_novelties(parts) if len(parts) == len(answers) else None)
