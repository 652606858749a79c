"""The answers of stored rows beside their true labels, as arrays."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.manifest import HeadRecord
from probrt.runtime.calibration.renew import LabelledAnswers
from probrt.runtime.errors import InputError
from probrt.runtime.rows.numbers import Row

Floats = npt.NDArray[np.float64]
LabelledRow = tuple[Row, Mapping[str, str]]


def collect_answers(head: HeadRecord, rows: Iterable[LabelledRow]) -> LabelledAnswers:
    """Collects the answers of a pooled head for the rows with a true label; there may be none.

    rows: good rows, and the cells of their labels by column: of a class the column named like the head holds the
    label; of several outputs each has a column. An empty cell means that there is no label.
    Raises InputError for a label that the head does not have, for a cell that is no number, and for a row without
    `total`.
    """
    means, totals, targets = [], [], []
    for row, cells in rows:
        target = _parse_target(head, cells, row["file"])
        if target is None:
            continue
        means.append(_read_numbers(head, "mean", row))
        totals.append(_read_numbers(head, "total", row))
        targets.append(target)
    entries = (count_entries(head, "mean"),)
    outputs = () if head.kind == "class" else entries
    return LabelledAnswers(
        mean=np.array(means, np.float64).reshape(-1, *entries),
        total=np.array(totals, np.float64).reshape(-1, *outputs),
        target=np.array(targets, np.float64).reshape(-1, *outputs),
    )


def list_columns(head: HeadRecord) -> list[str]:
    """The columns of a table of labels that hold the truth of a head."""
    single = head.kind == "class" or count_entries(head, "mean") == 1
    return [head.name] if single else list(head.labels)


def count_entries(head: HeadRecord, quantity: str) -> int:
    """Returns how many numbers a quantity of a pooled head has."""
    return math.prod(side or 1 for side in head.outputs[quantity])


def _read_numbers(head: HeadRecord, quantity: str, row: Row) -> Floats:
    """Returns the numbers of a quantity, [entries]; InputError if the row does not hold so many."""
    values = row["heads"].get(head.name, {}).get(quantity)
    if quantity == "total" and values is None:
        raise InputError(f"{row['file']}: no {head.name}.total; predict with draws, not with the posterior mean")
    try:
        numbers = np.asarray(values, np.float64).ravel()
    except (TypeError, ValueError):
        numbers = np.array([], np.float64)
    count = count_entries(head, quantity)
    if numbers.size != count or not np.isfinite(numbers).all():
        raise InputError(f"{row['file']}: {head.name}.{quantity} must be {count} finite numbers")
    return numbers


def _parse_target(head: HeadRecord, cells: Mapping[str, str], file: str) -> list[float] | float | None:
    texts = [(cells.get(column) or "").strip() for column in list_columns(head)]
    if not all(texts):
        return None
    if head.kind == "class":
        if texts[0] not in head.labels:
            raise InputError(f"{file}: {head.name} {texts[0]!r} is none of {', '.join(head.labels)}")
        return float(head.labels.index(texts[0]))
    try:
        values = [float(text) for text in texts]
    except ValueError:
        raise InputError(f"{file}: {head.name} {', '.join(texts)!r} is no number") from None
    if not np.isfinite(values).all() or (head.kind == "binary" and not set(values) <= {0.0, 1.0}):
        needed = "0 or 1" if head.kind == "binary" else "finite"
        raise InputError(f"{file}: {head.name} {', '.join(texts)}, must be {needed}")
    return values
