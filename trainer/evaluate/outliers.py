"""How well novelty and each uncertainty tell images of another kind from those of the split."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from probrt.runtime.calibration.unknown import usual_level
from probrt.trainer.data import Examples
from probrt.trainer.evaluate.answers import Answers, NoveltyValues, iterate_answers
from probrt.trainer.evaluate.measures import mean_per_example
from probrt.trainer.evaluate.report import Separation, Strangers
from probrt.trainer.evaluate.scores import Score, bootstrap, false_positive_rate
from probrt.trainer.model import Model
from probrt.trainer.novelty.score import Novelty

_BINS = 30

Measures = dict[str, np.ndarray]


def list_measures(answers: Mapping[str, Answers], novelty: NoveltyValues | None) -> Measures:
    """Returns what may tell strangers, by name, each [n]: `novelty`, then `<head>.<uncertainty>`."""
    measures: Measures = {} if novelty is None else {"novelty": novelty.score}
    for head, values in answers.items():
        for quantity in values.uncertainties:
            measures[f"{head}.{quantity}"] = mean_per_example(getattr(values, quantity))
    return measures


def compute_measures(
    model: Model,
    images: Examples,
    novelty: NoveltyValues | None,
    *,
    seed: int,
    draws: int,
    on_images: Callable[[int], None],
) -> Measures:
    """Computes the measures of images without targets; holds the answers, which may be maps, of one batch at a time."""
    batches = [
        list_measures(answers, None)
        for answers in iterate_answers(model, images, seed=seed, draws=draws, targets=False, on_images=on_images)
    ]
    uncertainties = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    return list_measures({}, novelty) | uncertainties


def score_strangers(
    name: str,
    inside: Measures,
    outside: Measures,
    novelty: NoveltyValues | None,
    level: float | None,
    *,
    seed: int,
    resamples: int,
) -> Strangers:
    """Compares the measures of a folder of strangers with those of the split.

    novelty: of the strangers. level: the p-value up to which an image is unknown.
    """
    separations = [
        _separate(measure, inside[measure], values, seed=seed, resamples=resamples)
        for measure, values in outside.items()
    ]
    images = len(next(iter(outside.values())))
    return Strangers(name=name, images=images, unknown=share_unknown(novelty, level), separations=separations)


def choose_level(novelty: Novelty | None) -> float | None:
    """Returns the p-value up to which an image is unknown, as in `predict`; None without novelty."""
    return None if novelty is None else usual_level(len(novelty.scores))


def share_unknown(novelty: NoveltyValues | None, level: float | None) -> float | None:
    """Returns the share of images whose p-value is at most `level`; None without novelty."""
    if novelty is None or level is None:
        return None
    # A p-value is float32: the smallest may lie above the level that equals it by as much.
    return float((novelty.p_value <= level * (1 + 1e-6)).mean())


def _separate(measure: str, inner: np.ndarray, outer: np.ndarray, *, seed: int, resamples: int) -> Separation:
    values, is_outside = np.concatenate([inner, outer]), np.repeat([0, 1], [len(inner), len(outer)])
    edges = np.histogram_bin_edges(values, _BINS)
    inner_counts, outer_counts = (np.histogram(part, edges)[0].astype(float).tolist() for part in (inner, outer))
    scores = [bootstrap(score(values, is_outside), len(values), seed, resamples) for score in (_auroc, _aupr, _fpr95)]
    return Separation(
        measure=measure,
        auroc=scores[0],
        aupr=scores[1],
        fpr95=scores[2],
        histogram={"edges": edges.tolist(), "inside": inner_counts, "outside": outer_counts},
    )


def _auroc(values: np.ndarray, is_outside: np.ndarray) -> Score:
    from sklearn.metrics import roc_auc_score

    def score(rows: np.ndarray) -> float:
        kinds = is_outside[rows]
        return float(roc_auc_score(kinds, values[rows])) if len(set(kinds)) == 2 else np.nan

    return score


def _aupr(values: np.ndarray, is_outside: np.ndarray) -> Score:
    """Average precision, the strangers being those to find (Davis and Goadrich 2006 on why not trapezoids)."""
    from sklearn.metrics import average_precision_score

    def score(rows: np.ndarray) -> float:
        kinds = is_outside[rows]
        return float(average_precision_score(kinds, values[rows])) if len(set(kinds)) == 2 else np.nan

    return score


def _fpr95(values: np.ndarray, is_outside: np.ndarray) -> Score:
    def score(rows: np.ndarray) -> float:
        chosen, kinds = values[rows], is_outside[rows]
        return false_positive_rate(chosen[kinds == 0], chosen[kinds == 1]) if len(set(kinds)) == 2 else np.nan

    return score
