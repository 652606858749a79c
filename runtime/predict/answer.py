"""What a model answers for a batch of images: one `Answer` per head, all of them a `Prediction`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.manifest import QUANTITIES

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
class Prediction:
    """The answers for a batch: one per head, by name; draws: how many each image took, [batch]."""

    heads: Mapping[str, Answer]
    draws: npt.NDArray[np.int32]

    def __getitem__(self, head: str) -> Answer:
        return self.heads[head]

    @cached_property
    def faults(self) -> list[str]:
        """Why the answer of each image must not be used, or an empty string: [batch]."""
        reasons = [""] * len(self.draws)
        for head, answer in self.heads.items():
            for name, values in answer.quantities.items():
                finite = np.isfinite(values).reshape(len(reasons), -1).all(axis=1)
                for index in np.flatnonzero(~finite):
                    reasons[index] = reasons[index] or f"the model's {head}.{name} is not finite for this image"
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
    return Prediction(heads, np.concatenate([part.draws for part in parts]))
