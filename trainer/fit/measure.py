"""Measures a fitted model: its random weights, its heads on each split, and which of them have learned nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from probrt.trainer.data import Examples
from probrt.trainer.fit.baseline import note_unlearned
from probrt.trainer.fit.validation import average_scores, make_scores
from probrt.trainer.model import Model
from probrt.trainer.variational.kl_report import WeightReport, kl_report

# Draws of the report on weights.
_DRAWS = 16


@dataclass(frozen=True)
class Measured:
    """What a model directory states of a fit.

    weights: a report per random weight. metrics: by split but the training split, then by head, at the posterior mean.
    unlearned: a note for each head that is no better on the validation split than one answer for all images.
    """

    weights: list[WeightReport]
    metrics: dict[str, dict[str, float]]
    unlearned: list[str]


def measure_model(
    model: Model,
    splits: Mapping[str, Examples],
    seed: int,
    on_stage: Callable[[str, float], None] = lambda stage, share: None,
) -> Measured:
    """Measures a model on the splits beside `train`; without a validation split no head counts as unlearned.

    on_stage: called with the name of each stage and the share of the whole way from config to directory.
    """
    on_stage("measuring the weights", 0.8)
    weights = kl_report(model.network, seed, draws=_DRAWS)
    on_stage("scoring", 0.9)
    compute_scores = make_scores(model)
    scores = {name: compute_scores(examples) for name, examples in splits.items() if name != "train"}
    metrics = {name: average_scores(values) for name, values in scores.items()}
    unlearned = []
    if "validation" in splits:
        unlearned = note_unlearned(model.heads, splits["train"], splits["validation"], scores["validation"])
    return Measured(weights, metrics, unlearned)
