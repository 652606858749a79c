"""The scores of a head, by its kind, and the curves that the report draws of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from probrt.runtime.bundle.manifest import Calibration, Conformal, Kind
from probrt.runtime.calibration.conformal import class_sets, intervals
from probrt.runtime.calibration.risk import risk_coverage
from probrt.trainer.evaluate import scores
from probrt.trainer.evaluate.answers import Answers
from probrt.trainer.evaluate.calibration_error import CalibrationError, compare_classes, compare_confidence
from probrt.trainer.evaluate.confusion import count_confusion, score_classes
from probrt.trainer.evaluate.scores import Score
from probrt.trainer.heads import AnyHead
from probrt.trainer.heads.binary import BinaryHead
from probrt.trainer.heads.classes import ClassHead

INTERVALS = (0.5, 0.8, 0.9, 0.95)
_POINTS = 200


# Noise makes the plain ECE larger, and larger again in a resample, so that it lies below its bootstrap interval.
BIASED = frozenset({"ECE"})


@dataclass(frozen=True)
class SetScores:
    """How often the sets or intervals of a method hold the target, and their size; as `Coverage` in the report."""

    method: str
    wanted: float
    held: Score
    size: Score | None


@dataclass(frozen=True)
class Measures:
    """One head's scores, each a function of row numbers, and what charts need.

    loss: of each example; `loss_name` says which. uncertainty: of each example, in whose order the risk-coverage curve
    takes them. surest_mistakes: rows of mistakes, the least expected first. calibration: calibration errors by name.
    sets: scores of the sets or intervals.
    curves: "classes", "confusion", "reliability" [bins: count, confidence, frequency], "pit" [counts], in plain lists.
    """

    scores: dict[str, Score]
    loss: np.ndarray
    loss_name: str
    uncertainty: np.ndarray
    surest_mistakes: np.ndarray
    calibration: dict[str, CalibrationError] = field(default_factory=dict)
    sets: list[SetScores] = field(default_factory=list)
    curves: dict[str, Any] = field(default_factory=dict)


def measure_head(head: AnyHead, answers: Answers, target: np.ndarray, calibration: Calibration | None) -> Measures:
    """Computes a head's scores on examples that all have a target (at some position, for a head per position)."""
    thresholds = calibration.conformal if calibration else []
    measures = _MEASURES[head.kind](head, answers, target, thresholds)
    if head.per_position:
        position_scores = head.position_scores({"mean": answers.mean, "total": answers.total}, target)
        for conformal in thresholds:
            inside = np.where(np.isnan(position_scores), np.nan, position_scores <= conformal.threshold)
            held = _mean(np.nanmean(inside, axis=1))
            measures.sets.append(SetScores(conformal.method, conformal.coverage, held, None))
    return measures


def mean_per_example(values: np.ndarray) -> np.ndarray:
    """One number per example: the mean over positions and outputs, float64 [n]."""
    means: np.ndarray = values.reshape(len(values), -1).mean(axis=1, dtype=np.float64)
    return means


def risk_curve(measures: Measures) -> list[tuple[float, float, float]]:
    """(coverage, risk, threshold) at up to 200 of the distinct uncertainties."""
    thresholds, coverage, risk = risk_coverage(measures.uncertainty, measures.loss)
    chosen = np.unique(np.linspace(0, len(coverage) - 1, min(_POINTS, len(coverage))).astype(int))
    return [(float(coverage[i]), float(risk[i]), float(thresholds[i])) for i in chosen]


def _measure_classes(head: ClassHead, answers: Answers, target: np.ndarray, thresholds: list[Conformal]) -> Measures:
    count = len(target)
    labels = target.reshape(count, -1)
    known = labels >= 0
    mean = answers.mean.astype(np.float64).reshape(count, labels.shape[1], -1)
    right = (mean.argmax(axis=-1) == labels) & known
    one_hot = np.eye(len(head.labels))[np.maximum(labels, 0)]
    items = np.maximum(known.sum(axis=1), 1)
    accuracy = right.sum(axis=1) / items
    squares = (np.square(mean - one_hot).sum(axis=-1) * known).sum(axis=1) / items
    ece, bins = _calibration_error(mean.max(axis=-1), right, known)
    calibration = {"calibration error": compare_confidence(mean.max(axis=-1), right, known)}
    sets = []
    if not head.per_position:
        calibration["classwise calibration error"] = compare_classes(mean[:, 0], labels[:, 0])
        sets = _score_sets(mean[:, 0], labels[:, 0], thresholds)
    matrix = count_confusion(labels, mean.argmax(axis=-1), known, len(head.labels))
    classes = score_classes(head.names, matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0))
    return _measure_errors(
        {"accuracy": _mean(accuracy), "NLL": _mean(answers.nll), "ECE": ece, "Brier": _mean(squares)},
        answers,
        accuracy,
        calibration,
        sets,
        {"reliability": bins, "confusion": matrix.tolist(), "classes": classes},
    )


def _measure_binary(head: BinaryHead, answers: Answers, target: np.ndarray, thresholds: list[Conformal]) -> Measures:
    del thresholds
    count = len(target)
    truth, mean = target.reshape(count, -1), answers.mean.astype(np.float64).reshape(count, -1)
    known = np.isfinite(truth)
    yes, predicted = np.nan_to_num(truth) > 0.5, mean > 0.5
    items = np.maximum(known.sum(axis=1), 1)
    accuracy = ((yes == predicted) & known).sum(axis=1) / items
    squares = (np.square(mean - yes) * known).sum(axis=1) / items
    either = ((yes | predicted) & known).sum(axis=1)
    overlap = np.where(either > 0, ((yes & predicted) & known).sum(axis=1) / np.maximum(either, 1), 1.0)
    ece, bins = _calibration_error(mean, yes, known)
    by_output = [(values & known).reshape(-1, head.size).sum(axis=0) for values in (yes & predicted, yes, predicted)]
    return _measure_errors(
        {"accuracy": _mean(accuracy), "IoU": _mean(overlap), "NLL": _mean(answers.nll), "ECE": ece,
         "Brier": _mean(squares)},
        answers,
        accuracy,
        {"calibration error": compare_confidence(mean, yes, known)},
        [],
        {"reliability": bins, "classes": score_classes(head.names, *by_output)},
    )  # fmt: skip


def _measure_errors(
    head_scores: dict[str, Score],
    answers: Answers,
    accuracy: np.ndarray,
    calibration: dict[str, CalibrationError],
    sets: list[SetScores],
    curves: dict[str, Any],
) -> Measures:
    """The measures of answers that are right or wrong; accuracy: the share of right ones per example, [n]."""
    uncertainty, wrong = mean_per_example(answers.total), 1.0 - accuracy
    surest_first = np.argsort(uncertainty, kind="stable")
    return Measures(
        scores={**head_scores, "AURC": _area_under_risk(uncertainty, wrong), **_uncertainty_scores(answers)},
        loss=wrong,
        loss_name="error rate",
        uncertainty=uncertainty,
        surest_mistakes=surest_first[wrong[surest_first] > 0.5],
        calibration=calibration,
        sets=sets,
        curves=curves,
    )


def _measure_real(head: AnyHead, answers: Answers, target: np.ndarray, thresholds: list[Conformal]) -> Measures:
    count = len(target)
    truth, mean = target.reshape(count, -1).astype(np.float64), answers.mean.astype(np.float64).reshape(count, -1)
    error = np.abs(mean - truth)
    absolute, square = np.nanmean(error, axis=1), np.nanmean(np.square(error), axis=1)
    deviation = np.sqrt(answers.total.astype(np.float64)).reshape(count, -1)
    uncertainty = mean_per_example(answers.total)
    head_scores: dict[str, Score] = {
        "MAE": _mean(absolute),
        "RMSE": lambda rows: float(np.sqrt(square[rows].mean())),
        "NLL": _mean(answers.nll),
        "AURC": _area_under_risk(uncertainty, absolute),
        "sharpness": _mean(deviation.mean(axis=1)),
    }
    head_scores |= {name: _mean(values) for name, values in head.extra_scores(mean, truth).items()}
    curves: dict[str, Any] = {}
    sets: list[SetScores] = []
    if answers.samples is not None:
        head_scores["CRPS"] = _mean(scores.crps(answers.samples, truth).mean(axis=1))
        for coverage in INTERVALS:
            low, high = scores.interval(answers.samples, coverage)
            inside = (low <= truth) & (truth <= high)
            width = _mean((high - low).mean(axis=1))
            sets.append(SetScores("likelihood", coverage, _mean(inside.mean(axis=1)), width))
        transform = scores.probability_integral_transform(answers.samples, truth)
        curves["pit"] = np.histogram(transform, 20, (0, 1))[0].tolist()
        for conformal in thresholds:
            low, high = intervals(mean, deviation, conformal)
            inside = (low <= truth) & (truth <= high)
            held, width = _mean(inside.all(axis=1).astype(float)), _mean((high - low).mean(axis=1))
            sets.append(SetScores(conformal.method, conformal.coverage, held, width))
    return Measures(
        scores=head_scores | _uncertainty_scores(answers),
        loss=absolute,
        loss_name="mean absolute error",
        uncertainty=uncertainty,
        surest_mistakes=np.argsort(-absolute / np.sqrt(np.maximum(uncertainty, 1e-30)), kind="stable"),
        sets=sets,
        curves=curves,
    )


_MEASURES: Final[dict[Kind, Callable[[Any, Answers, np.ndarray, list[Conformal]], Measures]]] = {
    "class": _measure_classes,
    "binary": _measure_binary,
    "real": _measure_real,
}


def _mean(values: np.ndarray) -> Score:
    return lambda rows: float(np.mean(values[rows]))


def _area_under_risk(uncertainty: np.ndarray, loss: np.ndarray) -> Score:
    return lambda rows: scores.area_under_risk(uncertainty[rows], loss[rows])


def _uncertainty_scores(answers: Answers) -> dict[str, Score]:
    """Total uncertainty and its two parts, as far as the model knows them, averaged."""
    return {name: _mean(mean_per_example(getattr(answers, name))) for name in answers.uncertainties}


def _calibration_error(confidence: np.ndarray, right: np.ndarray, known: np.ndarray) -> tuple[Score, list[list[float]]]:
    """The calibration error over all items of the chosen examples, and the bins for a chart; [n, items] each."""
    bins = np.stack([scores.reliability(c[k], r[k]) for c, r, k in zip(confidence, right, known, strict=True)])

    def score(rows: np.ndarray) -> float:
        counts, confident, correct = bins[rows].sum(axis=0)
        return float(np.abs(confident - correct).sum() / max(1.0, counts.sum()))

    counts, confident, correct = bins.sum(axis=0)
    divisor = np.maximum(counts, 1)
    return score, np.stack([counts, confident / divisor, correct / divisor], 1).tolist()


def _score_sets(probabilities: np.ndarray, label: np.ndarray, thresholds: list[Conformal]) -> list[SetScores]:
    """Coverage and size of the conformal sets that the model holds thresholds for."""
    set_scores = []
    for conformal in thresholds:
        inside = class_sets(probabilities, conformal)
        held = _mean(inside[np.arange(len(label)), label].astype(float))
        size = _mean(inside.sum(axis=1).astype(float))
        set_scores.append(SetScores(conformal.method, conformal.coverage, held, size))
    return set_scores
