"""How well each uncertainty tells images of another kind from those of the split."""

from __future__ import annotations

import numpy as np

from probrt.trainer.evaluate.answers import Answers
from probrt.trainer.evaluate.measures import mean_per_example
from probrt.trainer.evaluate.report import Interval
from probrt.trainer.evaluate.scores import Score, bootstrap, false_positive_rate

QUANTITIES = ("total", "aleatoric", "epistemic")
_BINS = 30

Histogram = dict[str, list[float]]


def score_outliers(
    inside: Answers, outside: Answers, *, seed: int, resamples: int
) -> tuple[dict[str, Interval], dict[str, Histogram]]:
    """Computes AUROC and FPR95 by each quantity, and a histogram of each: edges, and the counts of both sets.

    inside: answers for the split. outside: for images of another kind.
    """
    scores, histograms = {}, {}
    for quantity in inside.uncertainties:
        inner, outer = (mean_per_example(getattr(answers, quantity)) for answers in (inside, outside))
        values, is_outside = np.concatenate([inner, outer]), np.repeat([0, 1], [len(inner), len(outer)])
        for name, score in (("AUROC", _auroc(values, is_outside)), ("FPR95", _fpr95(values, is_outside))):
            scores[f"{name} by {quantity}"] = bootstrap(score, len(values), seed, resamples)
        edges = np.histogram_bin_edges(values, _BINS)
        counts = [np.histogram(part, edges)[0].astype(float).tolist() for part in (inner, outer)]
        histograms[quantity] = {"edges": edges.tolist(), "inside": counts[0], "outside": counts[1]}
    return scores, histograms


def _auroc(values: np.ndarray, is_outside: np.ndarray) -> Score:
    from sklearn.metrics import roc_auc_score

    def score(rows: np.ndarray) -> float:
        kinds = is_outside[rows]
        return float(roc_auc_score(kinds, values[rows])) if len(set(kinds)) == 2 else np.nan

    return score


def _fpr95(values: np.ndarray, is_outside: np.ndarray) -> Score:
    def score(rows: np.ndarray) -> float:
        chosen, kinds = values[rows], is_outside[rows]
        return false_positive_rate(chosen[kinds == 0], chosen[kinds == 1]) if len(set(kinds)) == 2 else np.nan

    return score
