"""Scores the stored predictions of a method: one line of the quality table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from compared.methods import Method
from compared.networks import MEMBERS
from compared.pictures import KINDS, read_digits, split_fold

Interval = tuple[float, float, float]


@dataclass(frozen=True)
class Scores:
    """The scores of a method.

    Attributes:
        accuracy, nll, ece: value, low and high end of the bootstrap interval, over the digits of all folds.
        total, epistemic: AUROC of this uncertainty by kind of picture.
        seconds: training time of a fold.
    """

    accuracy: Interval
    nll: Interval
    ece: Interval
    total: dict[str, float]
    epistemic: dict[str, float]
    seconds: float


def compute_scores(method: Method, files: list[Path], resamples: int) -> Scores:
    """Computes the scores of a method from its predictions, one file per fold."""
    from probrt.runtime.hush import hush

    with hush():  # TensorFlow logs while it is imported
        from probrt.trainer.evaluate.scores import bootstrap, expected_calibration_error

    images, labels, folds = read_digits()
    means, truths, familiar, unfamiliar, seconds = [], [], [], {kind: [] for kind in KINDS}, 0.0
    for fold, file in enumerate(files):
        with np.load(file) as arrays:
            draws = {name: arrays[name] for name in arrays.files}
        seconds += float(draws.pop("seconds")) / len(files)
        if method.first_draw_only:
            draws = {name: probabilities[:1] for name, probabilities in draws.items()}
        temperature = 1.0
        if method.temperature:
            _, validation, _ = split_fold(fold, images, labels, folds)
            temperature = fit_temperature(draws["validation"], validation.targets["digit"])
        draws = {name: apply_temperature(probabilities, temperature) for name, probabilities in draws.items()}
        means.append(draws["fold"].mean(0))
        truths.append(labels[folds == fold])
        familiar.append(_uncertainties(draws["fold"]))
        for kind in KINDS:
            unfamiliar[kind].append(_uncertainties(draws[kind]))
    p, label = np.concatenate(means), np.concatenate(truths)
    right, confidence, count = p.argmax(1) == label, p.max(1), len(label)
    nll = -np.log(np.maximum(p[np.arange(count), label], 1e-30))
    return Scores(
        bootstrap(lambda rows: 100 * float(right[rows].mean()), count, 0, resamples),
        bootstrap(lambda rows: float(nll[rows].mean()), count, 0, resamples),
        bootstrap(lambda rows: expected_calibration_error(confidence[rows], right[rows]), count, 0, resamples),
        {kind: _mean_auroc(familiar, unfamiliar[kind], "total") for kind in KINDS},
        {kind: _mean_auroc(familiar, unfamiliar[kind], "epistemic") for kind in KINDS},
        seconds / (MEMBERS if method.first_draw_only else 1),
    )


def _mean_auroc(familiar: list[dict[str, np.ndarray]], unfamiliar: list[dict[str, np.ndarray]], quantity: str) -> float:
    """Averages the AUROC over folds; each fold compares its own digits with all pictures of a kind."""
    from sklearn.metrics import roc_auc_score

    values = []
    for digits, pictures in zip(familiar, unfamiliar, strict=True):
        truth = np.repeat([0, 1], [len(digits[quantity]), len(pictures[quantity])])
        values.append(roc_auc_score(truth, np.concatenate([digits[quantity], pictures[quantity]])))
    return float(np.mean(values))


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Fits a temperature as `probrt train` does, to probabilities [draws, images, 10] and labels [images]."""
    from probrt.trainer.calibration.calibrate import GRID, LOG_DEVIATION

    images = np.arange(len(labels))
    likelihoods = [np.log(apply_temperature(probabilities, value).mean(0)[images, labels]).sum() for value in GRID]
    return float(GRID[int(np.argmax(likelihoods - 0.5 * (np.log(GRID) / LOG_DEVIATION) ** 2))])


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Divides the logits of probabilities [draws, images, 10] by a temperature."""
    logits = np.log(np.maximum(probabilities, 1e-30)) / temperature
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def _uncertainties(probabilities: np.ndarray) -> dict[str, np.ndarray]:
    total = _entropy(probabilities.mean(0))
    return {"total": total, "epistemic": total - _entropy(probabilities).mean(0)}


def _entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log(np.maximum(p, 1e-30))).sum(-1)
