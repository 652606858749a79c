"""How uncertain and how wrong a head is on each example, for its risk curve."""

from __future__ import annotations

import numpy as np

from probrt.trainer.heads import AnyHead
from probrt.trainer.heads.base import Answer


def example_errors(head: AnyHead, answer: Answer, target: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Each example's total uncertainty, averaged over outputs and positions, and the share of them that is wrong.

    answer: mean and total [n, …]. target: of examples that have one at some position. None for a head whose answers
    are not right or wrong.
    """
    errors = head.find_errors(answer["mean"], target)
    if errors is None:
        return None
    wrong, known = (values.reshape(len(target), -1).sum(axis=1) for values in errors)
    uncertainty = answer["total"].reshape(len(target), -1).mean(axis=1, dtype=np.float64)
    return uncertainty, wrong / np.maximum(known, 1)
