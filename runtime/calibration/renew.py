"""Fits the thresholds and the risk curve of a head anew, from answers and true values."""

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.manifest import Calibration, Conformal, HeadRecord
from probrt.runtime.calibration.conformal import (
    class_sets,
    intervals,
    score_distance,
    score_improbability,
    score_rank,
)
from probrt.runtime.calibration.risk import fit_curve
from probrt.runtime.calibration.thresholds import fit_quantiles, fit_regularized_sets

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LabelledAnswers:
    """The answers of one pooled head for n images, and the true values.

    mean: [n, classes] or [n, outputs]. total: [n] for one class of several, else [n, outputs]. target: class numbers
    [n], or [n, outputs].
    """

    mean: Floats
    total: Floats
    target: Floats

    def __len__(self) -> int:
        return len(self.target)


def renew_calibration(head: HeadRecord, record: Calibration, answers: LabelledAnswers) -> Calibration:
    """Returns the record with thresholds and a risk curve of these answers.

    Temperature and scale stay: the graphs hold them.
    """
    wrong = _find_errors(head, answers)
    curve = [] if wrong is None else fit_curve(_average_outputs(answers.total), wrong)
    return msgspec.structs.replace(record, conformal=fit_pooled(head, answers), risk=curve)


def fit_pooled(head: HeadRecord, answers: LabelledAnswers) -> list[Conformal]:
    """Fits the thresholds of a pooled head by every method of its kind; none for independent labels."""
    if head.kind == "class":
        target = answers.target.astype(np.int64)
        return [
            *fit_quantiles("lac", score_improbability(answers.mean, target)),
            *fit_quantiles("aps", score_rank(answers.mean, target)),
            *fit_regularized_sets(answers.mean, target),
        ]
    if head.kind == "real":
        return fit_quantiles("scaled", score_distance(answers.mean, np.sqrt(answers.total), answers.target))
    return []


def measure_coverage(head: HeadRecord, conformal: Conformal, answers: LabelledAnswers) -> float:
    """Returns the share of the true values that lie in their sets or intervals."""
    if head.kind == "class":
        inside = class_sets(answers.mean, conformal)[np.arange(len(answers)), answers.target.astype(np.int64)]
    else:
        low, high = intervals(answers.mean, np.sqrt(answers.total), conformal)
        inside = np.all((low <= answers.target) & (answers.target <= high), axis=-1)
    return float(inside.mean())


def _find_errors(head: HeadRecord, answers: LabelledAnswers) -> Floats | None:
    """Returns the share of each answer that is wrong, [n]; None for real values, which are not right or wrong."""
    if head.kind == "class":
        return _average_outputs(np.asarray(answers.mean.argmax(axis=1) != answers.target, np.float64))
    if head.kind == "binary":
        return _average_outputs(np.asarray((answers.mean > 0.5) != (answers.target > 0.5), np.float64))
    return None


def _average_outputs(values: Floats) -> Floats:
    averages: Floats = values.reshape(len(values), -1).mean(axis=1)
    return averages
