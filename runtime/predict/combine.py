"""The uncertainty of many draws, added up chunk by chunk.

Over S draws with mean m_s and expected spread a_s (variance or entropy):

* variance heads, by the law of total variance: mean = E m_s, aleatoric = E a_s,
  epistemic = E (m_s - mean)^2 (divided by S), total = aleatoric + epistemic;
* entropy heads (Depeweg et al. 2018, eq. 8): total = H(E p_s), aleatoric = E H(p_s),
  epistemic = total - aleatoric, the mutual information of the answer and the weights;
* a head's other outputs are averaged.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.manifest import HeadRecord

Floats = npt.NDArray[np.float64]
Answer = Mapping[str, npt.NDArray[np.floating]]


def entropy(probabilities: Floats, classes: bool) -> Floats:
    """Entropy in nats: over the last axis of class probabilities, or of each Bernoulli probability."""
    p = np.clip(probabilities, 0.0, 1.0)
    terms = -p * np.log(np.where(p > 0, p, 1.0))
    if classes:
        return np.asarray(terms.sum(axis=-1))
    q = 1.0 - p
    return np.asarray(terms - q * np.log(np.where(q > 0, q, 1.0)))


def over_classes(head: HeadRecord) -> bool:
    """Whether an entropy head's mean holds one probability per class (else one Bernoulli per entry)."""
    return len(head.outputs["mean"]) > len(head.outputs["aleatoric"])


@dataclass
class Sum:
    """What one head's chunks so far come to, for one batch; float64 inside.

    averages: over the draws so far, of `mean`, `aleatoric` and what else the head gives; spread: sum of
    squared deviations of the draws' means from their average (variance heads), by the update of Chan,
    Golub and LeVeque (1983).
    """

    head: HeadRecord
    draws: int = 0
    averages: dict[str, Floats] = field(default_factory=dict)
    spread: Floats = field(default_factory=lambda: np.zeros(()))

    @np.errstate(over="ignore", invalid="ignore")  # what is not finite becomes an error row
    def add(self, answer: Answer, draws: int) -> None:
        """Adds a chunk's answer over `draws` draws: its mean, aleatoric, epistemic, and other outputs."""
        named = {name: f"{self.head.name}.{name}" for name in ("mean", "aleatoric", *self.head.extra)}
        new = {name: np.asarray(answer[key], np.float64) for name, key in named.items() if key in answer}
        old = self.averages or {name: np.zeros(()) for name in new}
        together = self.draws + draws
        share = draws / together
        if self.head.combine == "variance":
            epistemic = np.asarray(answer[f"{self.head.name}.epistemic"], np.float64)
            between = np.square(new["mean"] - old["mean"]) * (self.draws * share)
            self.spread = self.spread + np.maximum(epistemic, 0.0) * draws + between
        self.averages = {name: old[name] + (values - old[name]) * share for name, values in new.items()}
        self.draws = together

    @np.errstate(over="ignore", invalid="ignore")
    def answer(self) -> dict[str, Floats]:
        """mean, total, aleatoric, epistemic (never negative) and the other outputs of all draws so far."""
        mean, aleatoric = self.averages["mean"], self.averages["aleatoric"]
        if self.head.combine == "variance":
            epistemic = self.spread / self.draws
            total = aleatoric + epistemic
        else:
            total = entropy(mean, over_classes(self.head))
            epistemic = np.maximum(total - aleatoric, 0.0)
        four = {"mean": mean, "total": total, "aleatoric": aleatoric, "epistemic": epistemic}
        return four | {name: values for name, values in self.averages.items() if name not in four}

    def rows(self, keep: npt.NDArray[np.intp]) -> "Sum":
        """The same sum for some rows of the batch."""
        spread = self.spread[keep] if self.spread.ndim else self.spread
        return Sum(self.head, self.draws, {name: values[keep] for name, values in self.averages.items()}, spread)


def stacked(sums: list[Sum]) -> Sum:
    """Sums of the same head and number of draws as one, in their order."""
    first = sums[0]
    if first.draws == 0:
        return Sum(first.head)
    averages = {name: np.concatenate([one.averages[name] for one in sums]) for name in first.averages}
    spread = np.concatenate([one.spread for one in sums]) if first.spread.ndim else first.spread
    return Sum(first.head, first.draws, averages, spread)


def standard_error(head: HeadRecord, answer: Mapping[str, Floats], draws: int) -> Floats:
    """Standard error of a head's predictive mean per image, over independent draws: [batch].

    Variance heads: the root of epistemic / (S - 1), in the unit of the head. Entropy heads: an upper
    bound for every probability, the root of epistemic / (2 (S - 1)), because the mutual information is
    at least twice the variance of each draw's probability (Pinsker's inequality). Heads with several
    entries or positions give the root mean square over them. With one draw it is infinite.
    """
    epistemic = answer["epistemic"]
    square = epistemic.reshape(len(epistemic), -1).mean(axis=1)
    if draws < 2:
        return np.full(len(square), np.inf)
    return np.asarray(np.sqrt(square / (draws - 1) / (1.0 if head.combine == "variance" else 2.0)))
