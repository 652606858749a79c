"""What a model answers for a batch of images: one `Answer` per head, all of them a `Prediction`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.manifest import NOVELTY, NOVELTY_MAP, NOVELTY_QUANTITIES, QUANTITIES

Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Answer:
    """The answer of one head: its quantities by name, `mean` first.

    `mean` is [batch, outputs], [batch, classes], or with the positions after the batch. `total`, `aleatoric` and
    `epistemic` are [batch] for categorical heads, else of the shape of `mean`: variances, or entropies in nats. A
    quantity that the variant cannot know is absent here, and None as an attribute. Other outputs of the head are
    [batch, ...].
    """

    quantities: Mapping[str, Values]

    @property
    def mean(self) -> Values:
        return self.quantities["mean"]

    @property
    def total(self) -> Values | None:
        return self.quantities.get("total")

    @property
    def aleatoric(self) -> Values | None:
        return self.quantities.get("aleatoric")

    @property
    def epistemic(self) -> Values | None:
        return self.quantities.get("epistemic")

    @property
    def extra(self) -> dict[str, Values]:
        """The outputs of the head beside the four quantities."""
        return {name: values for name, values in self.quantities.items() if name not in QUANTITIES}

    def image(self, index: int) -> "Answer":
        """Returns the answer for one image of the batch; its arrays have no batch axis."""
        return Answer({name: values[index] for name, values in self.quantities.items()})


@dataclass(frozen=True)
class Novelty:
    """How far each image lies from the training images.

    score: 0 for an average calibration image, in their standard deviations, [batch].
    p_value: the conformal one, [batch]: (1 + calibration images at least as novel) / (their number + 1).
    map: the score of each position, 0 for an average one of the calibration images, [batch, height, width]; None where
        the bundle has none.
    """

    score: Values
    p_value: Values
    map: Values | None = None

    @property
    def outputs(self) -> dict[str, Values]:
        """The values by the names of the graphs' outputs."""
        named = {f"{NOVELTY}.score": self.score, f"{NOVELTY}.p_value": self.p_value}
        return named if self.map is None else named | {f"{NOVELTY}.{NOVELTY_MAP}": self.map}

    def select(self, rows: npt.NDArray[np.intp]) -> "Novelty":
        """Returns the novelty of some images of the batch."""
        return Novelty(self.score[rows], self.p_value[rows], None if self.map is None else self.map[rows])


@dataclass(frozen=True)
class Prediction:
    """The answers for a batch: one per head, by name.

    draws: how many each image took, [batch]. novelty: None where the bundle has none.
    """

    heads: Mapping[str, Answer]
    draws: npt.NDArray[np.int32]
    novelty: Novelty | None = None

    def __getitem__(self, head: str) -> Answer:
        return self.heads[head]

    @cached_property
    def faults(self) -> list[str]:
        """Why the answer of each image must not be used, or an empty string: [batch]."""
        reasons = [""] * len(self.draws)
        arrays = {
            f"{head}.{name}": values
            for head, answer in self.heads.items()
            for name, values in answer.quantities.items()
        }
        if self.novelty is not None:
            arrays |= self.novelty.outputs
        for name, values in arrays.items():
            finite = np.isfinite(values).reshape(len(reasons), -1).all(axis=1)
            for index in np.flatnonzero(~finite):
                reasons[index] = reasons[index] or f"the model's {name} is not finite for this image"
        return reasons


@np.errstate(over="ignore", invalid="ignore")  # values that are not finite become an error row
def make_answer(quantities: Mapping[str, npt.NDArray[np.floating]]) -> Answer:
    """Returns the answer that holds these quantities in float32."""
    return Answer({name: np.asarray(values, np.float32) for name, values in quantities.items()})


def join_predictions(parts: Sequence[Prediction]) -> Prediction:
    """Returns the predictions of consecutive batches as one."""
    if len(parts) == 1:
        return parts[0]
    heads = {}
    for head, answer in parts[0].heads.items():
        names = answer.quantities
        heads[head] = Answer({q: np.concatenate([part.heads[head].quantities[q] for part in parts]) for q in names})
    novelties = [part.novelty for part in parts if part.novelty is not None]
    return Prediction(
        heads,
        np.concatenate([part.draws for part in parts]),
        join_novelties(novelties) if len(novelties) == len(parts) else None,
    )


@np.errstate(over="ignore", invalid="ignore")
def read_novelty(outputs: Mapping[str, npt.NDArray[np.floating]]) -> Novelty | None:
    """Returns the novelty among the outputs of a graph, or None if it has none."""
    names = [f"{NOVELTY}.{quantity}" for quantity in NOVELTY_QUANTITIES]
    if not all(name in outputs for name in names):
        return None
    positions = outputs.get(f"{NOVELTY}.{NOVELTY_MAP}")
    score, p_value = (np.asarray(outputs[name], np.float32) for name in names)
    return Novelty(score, p_value, None if positions is None else np.asarray(positions, np.float32))


def join_novelties(parts: Sequence[Novelty]) -> Novelty:
    """Returns the novelties of consecutive batches as one."""
    maps = [part.map for part in parts if part.map is not None]
    return Novelty(
        np.concatenate([part.score for part in parts]),
        np.concatenate([part.p_value for part in parts]),
        np.concatenate(maps) if len(maps) == len(parts) else None,
    )
