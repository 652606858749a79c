"""Combines the answers of many draws, chunk by chunk.

Over S draws with mean m_s and expected spread a_s (variance or entropy):

* real heads, by the law of total variance: mean = E m_s, aleatoric = E a_s,
  epistemic = E (m_s - mean)^2 (divided by S), total = aleatoric + epistemic;
* class and binary heads (Depeweg et al. 2018, eq. 8): total = H(E p_s), aleatoric = E H(p_s),
  epistemic = total - aleatoric, the mutual information of the answer and the weights;
* other outputs of a head are averaged.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.manifest import QUANTITIES, HeadRecord, Kind

Floats = npt.NDArray[np.float64]
Quantities = Mapping[str, npt.NDArray[np.floating]]


def class_entropy(probabilities: Floats) -> Floats:
    """Returns the entropy in nats of class probabilities [..., classes]: [...]."""
    return np.asarray(_entropy_terms(probabilities).sum(axis=-1))


def binary_entropy(probabilities: Floats) -> Floats:
    """Returns the entropy in nats of each Bernoulli probability, in the same shape."""
    return np.asarray(_entropy_terms(probabilities) + _entropy_terms(1.0 - np.clip(probabilities, 0.0, 1.0)))


def _entropy_terms(probabilities: Floats) -> Floats:
    p = np.clip(probabilities, 0.0, 1.0)
    return np.asarray(-p * np.log(np.where(p > 0, p, 1.0)))


ENTROPIES: Final[Mapping[Kind, Callable[[Floats], Floats]]] = {"class": class_entropy, "binary": binary_entropy}


class Combiner(ABC):
    """Combines the answers of one head for one batch, call by call.

    draws: the number of draws so far. arrays: what is kept of them by name, [batch, ...].
    """

    def __init__(
        self, head: HeadRecord, draws: int = 0, arrays: Mapping[str, npt.NDArray[np.floating]] | None = None
    ) -> None:
        self.head = head
        self.draws = draws
        self.arrays = dict(arrays or {})

    @abstractmethod
    def add(self, outputs: Quantities, draws: int) -> None:
        """Adds the outputs of one call, named `<head>.<quantity>`, over `draws` draws."""

    @abstractmethod
    def combine(self) -> Quantities:
        """Returns the head's quantities by name, over all draws so far."""

    def select(self, rows: npt.NDArray[np.intp]) -> Self:
        """Returns the same state for some rows of the batch."""
        return type(self)(self.head, self.draws, {name: values[rows] for name, values in self.arrays.items()})


class LatestAnswer(Combiner):
    """Keeps the answer of the latest call: for calls that each answer for all draws, or for the posterior mean."""

    def add(self, outputs: Quantities, draws: int) -> None:
        self.arrays = _select_head(self.head, (*QUANTITIES, *self.head.extra), outputs)
        self.draws = draws

    def combine(self) -> Quantities:
        return self.arrays


class RealMoments(Combiner):
    """Accumulates the moments of a real head in float64.

    Keeps the averages over the draws, and as `_SQUARES` the sum of squared deviations of the draws' means from their
    average, by the update of Chan, Golub and LeVeque (1983).
    """

    @np.errstate(over="ignore", invalid="ignore")  # values that are not finite become an error row
    def add(self, outputs: Quantities, draws: int) -> None:
        averages = _select_head(self.head, ("mean", "aleatoric", *self.head.extra), outputs)
        epistemic = np.asarray(outputs[f"{self.head.name}.epistemic"], np.float64)
        share = draws / (self.draws + draws)
        deviation = np.asarray(averages["mean"], np.float64) - self.arrays.get("mean", _ZERO)
        between = np.square(deviation) * (self.draws * share)
        squares = self.arrays.get(_SQUARES, _ZERO) + np.maximum(epistemic, 0.0) * draws + between
        self.arrays = _average(self.arrays, averages, share) | {_SQUARES: squares}
        self.draws += draws

    @np.errstate(over="ignore", invalid="ignore")
    def combine(self) -> Quantities:
        epistemic = self.arrays[_SQUARES] / self.draws
        uncertainties = {"total": self.arrays["aleatoric"] + epistemic, "epistemic": epistemic}
        return _order({name: values for name, values in self.arrays.items() if name != _SQUARES} | uncertainties)


class EntropyMoments(Combiner):
    """Accumulates the moments of a class or a binary head in float64: the averages over the draws."""

    @np.errstate(over="ignore", invalid="ignore")
    def add(self, outputs: Quantities, draws: int) -> None:
        averages = _select_head(self.head, ("mean", "aleatoric", *self.head.extra), outputs)
        self.arrays = _average(self.arrays, averages, draws / (self.draws + draws))
        self.draws += draws

    @np.errstate(over="ignore", invalid="ignore")
    def combine(self) -> Quantities:
        total = ENTROPIES[self.head.kind](np.asarray(self.arrays["mean"], np.float64))
        # Rounding may put the entropy of the mean a little below the mean entropy.
        epistemic = np.maximum(total - self.arrays["aleatoric"], 0.0)
        return _order(self.arrays | {"total": total, "epistemic": epistemic})


_SQUARES = "squares of deviations"  # not a possible name of an output
_ZERO = np.zeros(())
_COMBINERS: Final[Mapping[Kind, type[Combiner]]] = {
    "class": EntropyMoments,
    "binary": EntropyMoments,
    "real": RealMoments,
}


def combine_chunks(head: HeadRecord) -> Combiner:
    """Returns an empty combiner for calls that each answer for a chunk of the draws."""
    return _COMBINERS[head.kind](head)


def stack_combiners(combiners: Sequence[Combiner]) -> Combiner:
    """Returns one combiner for the rows of several, in their order, of the same head and number of draws."""
    first = combiners[0]
    arrays = {name: np.concatenate([combiner.arrays[name] for combiner in combiners]) for name in first.arrays}
    return type(first)(first.head, first.draws, arrays)


# Pinsker's inequality: the mutual information is at least twice the variance of each draw's probability.
_VARIANCES_IN_EPISTEMIC: Final[Mapping[Kind, float]] = {"class": 2.0, "binary": 2.0, "real": 1.0}


def standard_error(kind: Kind, epistemic: npt.NDArray[np.floating], draws: int) -> Floats:
    """Returns the standard error of a head's predictive mean per image, over S independent draws: [batch].

    Real heads: the root of epistemic / (S - 1), in the unit of the head. Class and binary heads: an upper bound for
    every probability, the root of epistemic / (2 (S - 1)). Heads with several entries or positions give the root mean
    square over them. Over one draw it is infinite.
    """
    squares = np.asarray(epistemic, np.float64).reshape(len(epistemic), -1).mean(axis=1)
    if draws < 2:
        return np.full(len(squares), np.inf)
    return np.asarray(np.sqrt(squares / (draws - 1) / _VARIANCES_IN_EPISTEMIC[kind]))


def _select_head(head: HeadRecord, names: Iterable[str], outputs: Quantities) -> dict[str, npt.NDArray[np.floating]]:
    """Returns the outputs of one head by quantity."""
    keys = {name: f"{head.name}.{name}" for name in names}
    return {name: outputs[key] for name, key in keys.items() if key in outputs}


def _average(old: Quantities, new: Quantities, share: float) -> dict[str, npt.NDArray[np.floating]]:
    """Returns the averages in float64 after values that are `share` of all draws."""
    averages: dict[str, npt.NDArray[np.floating]] = {}
    for name, values in new.items():
        before = old.get(name, _ZERO)
        averages[name] = before + (np.asarray(values, np.float64) - before) * share
    return averages


def _order(quantities: Quantities) -> Quantities:
    """Returns the four quantities first, in the manifest's order."""
    return {name: quantities[name] for name in QUANTITIES} | dict(quantities)
