"""What rows hold that can drift, as arrays: the numbers and the shares of a file of predictions."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from probrt.runtime.bundle.manifest import NOVELTY
from probrt.runtime.monitor.hypothesis_tests import Floats
from probrt.runtime.rows.numbers import Row

UNCERTAINTIES = ("total", "aleatoric", "epistemic")


@dataclass
class RowValues:
    """The values of a file of rows.

    rows: the good ones. numbers: one per good row, by name. counts: how often each class came, by name. bundles,
    draws: those that the rows name. maps: the heads whose values are files.
    """

    rows: int = 0
    numbers: dict[str, list[float]] = field(default_factory=dict)
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    bundles: set[str] = field(default_factory=set)
    draws: set[int] = field(default_factory=set)
    maps: set[str] = field(default_factory=set)

    def get_numbers(self, name: str) -> Floats:
        """Returns the numbers of that name; empty if there are none."""
        return np.array(self.numbers.get(name, ()), np.float64)


def collect_values(rows: Iterable[Row]) -> RowValues:
    """Collects the values of rows.

    Of novelty the score, the p-value and the share called unknown; of a class head its labels; of other heads each
    entry of the mean; of every head its uncertainties, averaged over its entries; and the share of error rows.
    """
    values = RowValues()
    for row in rows:
        is_good = row.get("status") == "ok"
        _count(values, "rows", "good" if is_good else "errors")
        if not is_good:
            continue
        values.rows += 1
        if isinstance(row.get("bundle"), str):
            values.bundles.add(row["bundle"])
        if isinstance(row.get("draws"), (int, float)):
            values.draws.add(int(row["draws"]))
        _add_novelty(values, row.get(NOVELTY) or {})
        for head, answer in (row["heads"] or {}).items():
            _add_head(values, head, answer)
    return values


def _add_novelty(values: RowValues, novelty: Row) -> None:
    for name in ("score", "p_value"):
        _add(values, f"{NOVELTY}.{name}", novelty.get(name))
    if isinstance(novelty.get("unknown"), bool):
        _count(values, f"{NOVELTY}.unknown", "unknown" if novelty["unknown"] else "known")


def _add_head(values: RowValues, head: str, answer: Row) -> None:
    means = answer["mean"] if isinstance(answer["mean"], list) else [answer["mean"]]
    if any(isinstance(part, str) for part in means):
        values.maps.add(head)
        return
    if isinstance(answer.get("label"), str):
        _count(values, f"{head}.label", answer["label"])
    else:
        for index, mean in enumerate(means):
            _add(values, f"{head}.mean" if len(means) == 1 else f"{head}.mean[{index}]", mean)
    for quantity in UNCERTAINTIES:
        parts = np.array(answer[quantity], np.float64) if answer.get(quantity) is not None else np.array([])
        if parts.size:
            _add(values, f"{head}.{quantity}", float(parts.mean()))


def _add(values: RowValues, name: str, number: Any) -> None:
    if isinstance(number, (int, float)) and np.isfinite(number):
        values.numbers.setdefault(name, []).append(float(number))


def _count(values: RowValues, name: str, label: str) -> None:
    values.counts.setdefault(name, Counter())[label] += 1
