"""What rows, columns, maps and overlays hold of a head, by the head's kind: one class per kind.

A new kind of head is a class here and a row in KINDS.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from statistics import NormalDist
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.manifest import QUANTITIES, Conformal, HeadRecord, Kind
from probrt.runtime.calibration.conformal import INTERVAL_METHODS, SET_METHODS, intervals, rank_sets
from probrt.runtime.rows.numbers import Row, round_number, to_numbers

Values = npt.NDArray[np.float32]
Picture = npt.NDArray[np.integer]
Column = tuple[str, int]
"""What a flat column holds ("number", "text", "flag" or "count"), and in how many lists inside each other."""


class HeadKind(ABC):
    """What a row says of heads of one kind. Arrays are those of one image, without the batch.

    conformal_methods: the methods of `Conformal` that make sets or intervals of such heads.
    has_regions: whether a map of such a head divides the image into regions, which an overlay outlines.
    """

    conformal_methods: ClassVar[tuple[str, ...]]
    has_regions: ClassVar[bool]

    def row(self, head: HeadRecord, quantities: Mapping[str, Values], conformal: Conformal | None) -> Row:
        """A head without positions in a row: its quantities as numbers, and what follows from them.

        conformal: the threshold of its set or interval, if it has one.
        """
        row = {name: to_numbers(values) for name, values in quantities.items()}
        return row | self.summarize(head, quantities, conformal)

    def columns(self, head: HeadRecord) -> dict[str, Column]:
        """The flat columns of `row`."""
        numbers = {name: ("number", count_lists(head, name)) for name in (*QUANTITIES, *head.extra)}
        return numbers | self.summary_columns(head)

    @abstractmethod
    def summarize(self, head: HeadRecord, quantities: Mapping[str, Values], conformal: Conformal | None) -> Row:
        """What a row holds beside the quantities: a label, a set, an interval."""

    @abstractmethod
    def summary_columns(self, head: HeadRecord) -> dict[str, Column]:
        """The flat columns of `summarize`."""

    def usual_conformal(self, coverage: float) -> Conformal | None:
        """The threshold of a head that is not calibrated; None if it has neither sets nor intervals then."""
        return None

    def count_positions(self, quantity: str, values: Values) -> int:
        """How many axes of a per-position quantity are positions."""
        return values.ndim - 1

    def pictures(self, head: HeadRecord, quantity: str, values: Values) -> list[Picture]:
        """A two-dimensional map as grey pictures [height, width] on a fixed scale; none where it has no scale."""
        return []

    def has_several_pictures(self, head: HeadRecord) -> bool:
        """Whether `pictures` may hold more than one."""
        return False

    def volume(self, quantity: str, values: Values) -> npt.NDArray[np.generic]:
        """A map of voxels as a NIfTI file holds it: [depth, height, width], or with several entries per voxel."""
        return values[..., 0] if values.ndim == 4 and values.shape[-1] == 1 else values

    def regions(self, mean: Values) -> npt.NDArray[np.integer]:
        """Numbers of regions, [height, width, layers]; layers overlap."""
        raise TypeError("a map of real values has no regions")

    def largest_entropy(self, head: HeadRecord) -> float:
        """The entropy, in nats, of the least certain answer; infinite where uncertainties are variances."""
        return math.inf


class ClassKind(HeadKind):
    """One class of several: label, probability, and if calibrated the conformal set."""

    conformal_methods = SET_METHODS
    has_regions = True

    def summarize(self, head: HeadRecord, quantities: Mapping[str, Values], conformal: Conformal | None) -> Row:
        mean = quantities["mean"].astype(np.float64)
        best = int(mean.argmax())
        row: Row = {"label": head.labels[best], "probability": round_number(mean[best])}
        if conformal is not None:
            order, sizes = rank_sets(mean[np.newaxis], conformal)
            members = order[0, : sizes[0]].tolist()
            row |= {"set": [head.labels[index] for index in members], "coverage": conformal.coverage}
        return row

    def summary_columns(self, head: HeadRecord) -> dict[str, Column]:
        return {"label": ("text", 0), "probability": ("number", 0), "set": ("text", 1), "coverage": ("number", 0)}

    def count_positions(self, quantity: str, values: Values) -> int:
        return values.ndim - (1 if quantity == "mean" else 0)

    def pictures(self, head: HeadRecord, quantity: str, values: Values) -> list[Picture]:
        return [class_numbers(values) if quantity == "mean" else scale(values, self.largest_entropy(head))]

    def volume(self, quantity: str, values: Values) -> npt.NDArray[np.generic]:
        return class_numbers(values) if quantity == "mean" else super().volume(quantity, values)

    def regions(self, mean: Values) -> npt.NDArray[np.integer]:
        return np.asarray(mean.argmax(axis=-1)[..., np.newaxis])

    def largest_entropy(self, head: HeadRecord) -> float:
        return math.log(len(head.labels))


class BinaryKind(HeadKind):
    """One yes or no per entry: the labels whose probability is at least 0.5."""

    conformal_methods = SET_METHODS
    has_regions = True

    def summarize(self, head: HeadRecord, quantities: Mapping[str, Values], conformal: Conformal | None) -> Row:
        probabilities = quantities["mean"].astype(np.float64).ravel()
        return {"label": [label for label, p in zip(head.labels, probabilities, strict=False) if p >= 0.5]}

    def summary_columns(self, head: HeadRecord) -> dict[str, Column]:
        return {"label": ("text", 1)}

    def pictures(self, head: HeadRecord, quantity: str, values: Values) -> list[Picture]:
        largest = 1.0 if quantity == "mean" else self.largest_entropy(head)
        return [scale(values[..., index], largest) for index in range(values.shape[-1])]

    def has_several_pictures(self, head: HeadRecord) -> bool:
        return head.outputs["mean"][-1] != 1

    def regions(self, mean: Values) -> npt.NDArray[np.integer]:
        return (mean >= 0.5).astype(np.uint8)

    def largest_entropy(self, head: HeadRecord) -> float:
        return math.log(2)


class RealKind(HeadKind):
    """Real numbers: an interval and its coverage."""

    conformal_methods = INTERVAL_METHODS
    has_regions = False

    def summarize(self, head: HeadRecord, quantities: Mapping[str, Values], conformal: Conformal | None) -> Row:
        variance = quantities.get("total", quantities.get("aleatoric"))
        if conformal is None or variance is None:
            return {}
        mean = quantities["mean"].astype(np.float64)
        low, high = intervals(mean, np.sqrt(variance.astype(np.float64)), conformal)
        ends = [to_numbers(low), to_numbers(high)] if mean.size == 1 else to_numbers(np.stack([low, high], -1))
        return {"interval": ends, "coverage": conformal.coverage}

    def summary_columns(self, head: HeadRecord) -> dict[str, Column]:
        return {"interval": ("number", 1 + count_lists(head, "mean")), "coverage": ("number", 0)}

    def usual_conformal(self, coverage: float) -> Conformal | None:
        """The central interval of a normal with the total variance."""
        return Conformal(coverage=coverage, method="scaled", threshold=NormalDist().inv_cdf(0.5 + coverage / 2))


KINDS: Mapping[Kind, HeadKind] = {"class": ClassKind(), "binary": BinaryKind(), "real": RealKind()}


def count_lists(head: HeadRecord, quantity: str) -> int:
    """How many lists inside each other `to_numbers` makes of a quantity: a part of one entry is a number."""
    sides = list(head.outputs.get(quantity, head.outputs["aleatoric"]))
    while sides and sides[-1] == 1:
        sides.pop()
    return len(sides)


def scale(values: Values, largest: float) -> Picture:
    """Maps 0 to `largest` onto the grey values 0 to 255."""
    return np.asarray(np.rint(np.clip(values / largest, 0.0, 1.0) * 255), np.uint8)


def class_numbers(probabilities: Values) -> Picture:
    """The likeliest class at each position, [..., classes] to [...]."""
    return np.asarray(probabilities.argmax(axis=-1), np.uint8 if probabilities.shape[-1] <= 256 else np.uint16)
