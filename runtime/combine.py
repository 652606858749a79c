"""The uncertainty of many draws, added up chunk by chunk.

Over S draws with mean m_s and expected spread a_s (variance or entropy):

* variance heads, by the law of total variance: mean = E m_s, aleatoric = E a_s,
  epistemic = E (m_s - mean)^2 (divided by S), total = aleatoric + epistemic;
* entropy heads (Depeweg et al. 2018, eq. 8): total = H(E p_s), aleatoric = E H(p_s),
  epistemic = total - aleatoric, the mutual information of the answer and the weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from probrt.runtime.manifest import Head

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


def over_classes(head: Head) -> bool:
    """Whether an entropy head's mean holds one probability per class (else one Bernoulli per entry)."""
    return len(head.outputs["mean"]) > len(head.outputs["aleatoric"])


@dataclass
class Sum:
    """What one head's chunks so far come to, for one batch; float64 inside.

    mean, aleatoric: averages over the draws so far; spread: sum of squared deviations of the
    draws' means from `mean` (variance heads), by the update of Chan, Golub and LeVeque (1983).
    """

    head: Head
    draws: int = 0
    mean: Floats = field(default_factory=lambda: np.zeros(()))
    aleatoric: Floats = field(default_factory=lambda: np.zeros(()))
    spread: Floats = field(default_factory=lambda: np.zeros(()))

    @np.errstate(over="ignore", invalid="ignore")  # what is not finite becomes an error row
    def add(self, answer: Answer, draws: int) -> None:
        """Adds a chunk's answer over `draws` draws: `<head>.mean`, `.aleatoric` and, if known, `.epistemic`."""
        mean = np.asarray(answer[f"{self.head.name}.mean"], np.float64)
        aleatoric = np.asarray(answer[f"{self.head.name}.aleatoric"], np.float64)
        together = self.draws + draws
        share = draws / together
        if self.head.combine == "variance":
            epistemic = np.asarray(answer[f"{self.head.name}.epistemic"], np.float64)
            between = np.square(mean - self.mean) * (self.draws * share)
            self.spread = self.spread + np.maximum(epistemic, 0.0) * draws + between
        self.mean = self.mean + (mean - self.mean) * share
        self.aleatoric = self.aleatoric + (aleatoric - self.aleatoric) * share
        self.draws = together

    @np.errstate(over="ignore", invalid="ignore")
    def answer(self) -> dict[str, Floats]:
        """mean, total, aleatoric and epistemic of all draws so far; epistemic is never negative."""
        if self.head.combine == "variance":
            epistemic = self.spread / self.draws
            total = self.aleatoric + epistemic
        else:
            total = entropy(self.mean, over_classes(self.head))
            epistemic = np.maximum(total - self.aleatoric, 0.0)
        return {"mean": self.mean, "total": total, "aleatoric": self.aleatoric, "epistemic": epistemic}

    def rows(self, keep: npt.NDArray[np.intp]) -> "Sum":
        """The same sum for some rows of the batch."""
        spread = self.spread[keep] if self.spread.ndim else self.spread
        return Sum(self.head, self.draws, self.mean[keep], self.aleatoric[keep], spread)


def stacked(sums: list[Sum]) -> Sum:
    """Sums of the same head and number of draws as one, in their order."""
    first = sums[0]
    if first.draws == 0:
        return Sum(first.head)
    parts = [np.concatenate([getattr(one, name) for one in sums]) for name in ("mean", "aleatoric")]
    spread = np.concatenate([one.spread for one in sums]) if first.spread.ndim else first.spread
    return Sum(first.head, first.draws, parts[0], parts[1], spread)


def standard_error(head: Head, answer: Mapping[str, Floats], draws: int) -> Floats:
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
