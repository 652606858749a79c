"""One line of the table: what a method's kept predictions are worth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from compared.methods import Method
from compared.networks import MEMBERS
from compared.pictures import KINDS, digits, split_of

Interval = tuple[float, float, float]


@dataclass(frozen=True)
class Scores:
    """Each with its bootstrap interval over the pooled digits; AUROC by kind of picture; seconds of training a fold."""

    accuracy: Interval
    nll: Interval
    ece: Interval
    total: dict[str, float]
    epistemic: dict[str, float]
    seconds: float


def scores(method: Method, files: list[Path], resamples: int) -> Scores:
    """The scores of the predictions in one file per fold."""
    from probrt.runtime.hush import hush

    with hush():  # what TensorFlow says when it is imported
        from probrt.trainer.evaluate.scores import bootstrap, expected_calibration_error

    images, labels, folds = digits()
    mean, truth, inside, others, seconds = [], [], [], {kind: [] for kind in KINDS}, 0.0
    for fold, file in enumerate(files):
        with np.load(file) as found:
            kept = {key: found[key] for key in found.files}
        seconds += float(kept.pop("seconds")) / len(files)
        if method.one:
            kept = {key: value[:1] for key, value in kept.items()}
        temperature = 1.0
        if method.temperature:
            _, validation, _ = split_of(fold, images, labels, folds)
            _, temperature = sharpened(kept["validation"], validation.targets["digit"])
        each = {key: sharpened(value, None, temperature)[0] for key, value in kept.items()}
        mean.append(each["fold"].mean(0))
        truth.append(labels[folds == fold])
        inside.append(_uncertainties(each["fold"]))
        for kind in KINDS:
            others[kind].append(_uncertainties(each[kind]))
    p, label = np.concatenate(mean), np.concatenate(truth)
    right, confidence, count = p.argmax(1) == label, p.max(1), len(label)
    nll = -np.log(np.maximum(p[np.arange(count), label], 1e-30))
    return Scores(
        bootstrap(lambda rows: 100 * float(right[rows].mean()), count, 0, resamples),
        bootstrap(lambda rows: float(nll[rows].mean()), count, 0, resamples),
        bootstrap(lambda rows: expected_calibration_error(confidence[rows], right[rows]), count, 0, resamples),
        {kind: _auroc(inside, others[kind], "total") for kind in KINDS},
        {kind: _auroc(inside, others[kind], "epistemic") for kind in KINDS},
        seconds / (MEMBERS if method.one else 1),
    )


def _auroc(inside: list[dict[str, np.ndarray]], others: list[dict[str, np.ndarray]], which: str) -> float:
    """A fold's network is compared on its own digits and all pictures of a kind; then folds are averaged."""
    from sklearn.metrics import roc_auc_score

    found = []
    for own, other in zip(inside, others, strict=True):
        truth = np.repeat([0, 1], [len(own[which]), len(other[which])])
        found.append(roc_auc_score(truth, np.concatenate([own[which], other[which]])))
    return float(np.mean(found))


def sharpened(
    each: np.ndarray, labels: np.ndarray | None, temperature: float | None = None
) -> tuple[np.ndarray, float]:
    """Draws' probabilities at the temperature given, or at the one that `probrt train` would find with the labels."""
    logits = np.log(np.maximum(each, 1e-30))

    def at(value: float) -> np.ndarray:
        scaled = np.exp(logits / value - (logits / value).max(-1, keepdims=True))
        return scaled / scaled.sum(-1, keepdims=True)

    if temperature is None:
        from probrt.trainer.calibration.calibrate import GRID, LOG_DEVIATION

        likelihoods = [np.log(at(value).mean(0)[np.arange(len(labels)), labels]).sum() for value in GRID]
        temperature = float(GRID[int(np.argmax(likelihoods - 0.5 * (np.log(GRID) / LOG_DEVIATION) ** 2))])
    return at(temperature), temperature


def _uncertainties(each: np.ndarray) -> dict[str, np.ndarray]:
    total = _entropy(each.mean(0))
    return {"total": total, "epistemic": total - _entropy(each).mean(0)}


def _entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log(np.maximum(p, 1e-30))).sum(-1)
