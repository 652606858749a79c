"""Which scores a head gets, and the curves that a page draws of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from probrt.runtime.bundle.conformal import class_sets, intervals
from probrt.runtime.bundle.manifest import Calibration
from probrt.trainer.calibration.conformal import misses
from probrt.trainer.evaluate import scores
from probrt.trainer.evaluate.answers import Answers
from probrt.trainer.evaluate.scores import BINS, Score, reliability
from probrt.trainer.heads import AnyHead
from probrt.trainer.heads.bernoulli import BinaryHead
from probrt.trainer.heads.categorical import ClassHead
from probrt.trainer.heads.real import BoxHead

INTERVALS = (0.5, 0.8, 0.9, 0.95)
_POINTS = 200


@dataclass(frozen=True)
class Measured:
    """One head's scores, each a function of row numbers, and what charts need.

    loss: of each example, whose order by `uncertainty` makes the risk-coverage curve; `loss_name` says which.
    curves: "reliability" [bins: count, confidence, frequency], "pit" [counts], in plain lists.
    """

    scores: dict[str, Score]
    loss: np.ndarray
    loss_name: str
    uncertainty: np.ndarray
    curves: dict[str, Any] = field(default_factory=dict)


def measured(head: AnyHead, answers: Answers, target: np.ndarray, calibration: Calibration | None) -> Measured:
    """A head's scores on examples that all have a target (at some position, for a head per position)."""
    if isinstance(head, ClassHead):
        found = _classes(head, answers, target, calibration)
    elif isinstance(head, BinaryHead):
        found = _yes_no(answers, target)
    else:
        found = _real(head, answers, target, calibration)
    if head.per_position and calibration:
        missed = misses(head, {"mean": answers.mean, "total": answers.total}, target)
        for one in calibration.conformal:
            held = np.nanmean(np.where(np.isnan(missed), np.nan, missed <= one.threshold), axis=1)
            found.scores[f"positions held at {one.coverage:.0%}"] = _mean(held)
    return found


def of_example(values: np.ndarray) -> np.ndarray:
    """One number per example: the mean over positions and outputs, float64 [n]."""
    return values.reshape(len(values), -1).mean(axis=1, dtype=np.float64)


def _mean(values: np.ndarray) -> Score:
    return lambda rows: float(np.mean(values[rows]))


def _split(answers: Answers) -> dict[str, Score]:
    """Total uncertainty and its two parts, averaged."""
    return {name: _mean(of_example(getattr(answers, name))) for name in ("total", "aleatoric", "epistemic")}


def _calibration_error(confidence: np.ndarray, right: np.ndarray, known: np.ndarray) -> tuple[Score, list]:
    """The calibration error over all items of the chosen examples; [n, items] each. And the bins, for a chart."""
    bins = np.stack([reliability(c[k], r[k]) for c, r, k in zip(confidence, right, known, strict=True)])

    def score(rows: np.ndarray) -> float:
        counts, confident, correct = bins[rows].sum(axis=0)
        return float(np.abs(confident - correct).sum() / max(1.0, counts.sum()))

    counts, confident, correct = bins.sum(axis=0)
    filled = np.maximum(counts, 1)
    return score, np.stack([counts, confident / filled, correct / filled], 1).tolist()


def _classes(head: ClassHead, answers: Answers, target: np.ndarray, calibration: Calibration | None) -> Measured:
    count = len(target)
    items = target.reshape(count, -1)
    known = items >= 0
    mean = answers.mean.astype(np.float64).reshape(count, items.shape[1], -1)
    right = (mean.argmax(axis=-1) == items) & known
    hot = np.eye(len(head.labels))[np.maximum(items, 0)]
    number = np.maximum(known.sum(axis=1), 1)
    accuracy = right.sum(axis=1) / number
    squares = (np.square(mean - hot).sum(axis=-1) * known).sum(axis=1) / number
    ece, chart = _calibration_error(mean.max(axis=-1), right, known)
    found: dict[str, Score] = {
        "accuracy": _mean(accuracy), "NLL": _mean(answers.nll), "ECE": ece, "Brier": _mean(squares),
    }  # fmt: skip
    uncertainty = of_example(answers.total)
    if not head.per_position:
        flat, label = mean[:, 0], items[:, 0]
        found["classwise ECE"] = lambda rows: scores.classwise_calibration_error(flat[rows], label[rows])
        found |= _sets(flat, label, calibration)
    wrong = 1.0 - accuracy
    found["AURC"] = lambda rows: scores.area_under_risk(uncertainty[rows], wrong[rows])
    return Measured(found | _split(answers), wrong, "error rate", uncertainty, {"reliability": chart})


def _sets(mean: np.ndarray, label: np.ndarray, calibration: Calibration | None) -> dict[str, Score]:
    """Coverage and size of the conformal sets that the model holds thresholds for."""
    found: dict[str, Score] = {}
    for one in calibration.conformal if calibration else []:
        inside = class_sets(mean, one)
        name = f"{one.coverage:.0%} {one.method} sets"
        found[f"coverage of {name}"] = _mean(inside[np.arange(len(label)), label].astype(float))
        found[f"size of {name}"] = _mean(inside.sum(axis=1).astype(float))
    return found


def _yes_no(answers: Answers, target: np.ndarray) -> Measured:
    count = len(target)
    items, mean = target.reshape(count, -1), answers.mean.astype(np.float64).reshape(count, -1)
    known = np.isfinite(items)
    yes, said = np.nan_to_num(items) > 0.5, mean > 0.5
    number = np.maximum(known.sum(axis=1), 1)
    accuracy = ((yes == said) & known).sum(axis=1) / number
    squares = (np.square(mean - yes) * known).sum(axis=1) / number
    either = ((yes | said) & known).sum(axis=1)
    overlap = np.where(either > 0, ((yes & said) & known).sum(axis=1) / np.maximum(either, 1), 1.0)
    ece, chart = _calibration_error(mean, yes, known)
    uncertainty, wrong = of_example(answers.total), 1.0 - accuracy
    found: dict[str, Score] = {
        "accuracy": _mean(accuracy), "IoU": _mean(overlap), "NLL": _mean(answers.nll), "ECE": ece,
        "Brier": _mean(squares), "AURC": lambda rows: scores.area_under_risk(uncertainty[rows], wrong[rows]),
    }  # fmt: skip
    return Measured(found | _split(answers), wrong, "error rate", uncertainty, {"reliability": chart})


def _real(head: AnyHead, answers: Answers, target: np.ndarray, calibration: Calibration | None) -> Measured:
    count = len(target)
    truth, mean = target.reshape(count, -1).astype(np.float64), answers.mean.astype(np.float64).reshape(count, -1)
    error = np.abs(mean - truth)
    absolute, square = np.nanmean(error, axis=1), np.nanmean(np.square(error), axis=1)
    deviation = np.sqrt(answers.total.astype(np.float64)).reshape(count, -1)
    uncertainty = of_example(answers.total)
    found: dict[str, Score] = {
        "MAE": _mean(absolute), "RMSE": lambda rows: float(np.sqrt(square[rows].mean())), "NLL": _mean(answers.nll),
        "AURC": lambda rows: scores.area_under_risk(uncertainty[rows], absolute[rows]),
        "sharpness": _mean(deviation.mean(axis=1)),
    }  # fmt: skip
    if isinstance(head, BoxHead):
        found["box IoU"] = _mean(head.metric(np.float32(mean), np.float32(truth)).numpy().astype(float))
    curves: dict[str, Any] = {}
    if answers.samples is not None:
        found["CRPS"] = _mean(scores.crps(answers.samples, truth).mean(axis=1))
        for coverage in INTERVALS:
            low, high = scores.interval(answers.samples, coverage)
            found[f"coverage of {coverage:.0%} intervals"] = _mean(((low <= truth) & (truth <= high)).mean(axis=1))
            found[f"width of {coverage:.0%} intervals"] = _mean((high - low).mean(axis=1))
        transformed = scores.probability_integral_transform(answers.samples, truth)
        curves["pit"] = np.histogram(transformed, 20, (0, 1))[0].tolist()
        for one in calibration.conformal if calibration else []:
            low, high = intervals(mean, deviation, one)
            found[f"coverage of {one.coverage:.0%} conformal"] = _mean(
                ((low <= truth) & (truth <= high)).all(axis=1).astype(float)
            )
            found[f"width of {one.coverage:.0%} conformal"] = _mean((high - low).mean(axis=1))
    return Measured(found | _split(answers), absolute, "mean absolute error", uncertainty, curves)


def risk_curve(found: Measured) -> list[tuple[float, float, float]]:
    """(coverage, risk, threshold) at up to 200 of the distinct uncertainties."""
    coverage, risk = scores.risk_coverage(found.uncertainty, found.loss)
    thresholds = np.unique(found.uncertainty)
    chosen = np.unique(np.linspace(0, len(coverage) - 1, min(_POINTS, len(coverage))).astype(int))
    return [(float(coverage[i]), float(risk[i]), float(thresholds[i])) for i in chosen]


__all__ = ["BINS", "INTERVALS", "Measured", "measured", "of_example", "risk_curve"]
