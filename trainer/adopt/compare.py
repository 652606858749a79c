"""What a model scores before and after its adoption, on the same examples."""

from __future__ import annotations

import numpy as np

from probrt.trainer.data import Examples
from probrt.trainer.evaluate.answers import compute_answers
from probrt.trainer.evaluate.measures import measure_head
from probrt.trainer.model import Model

Scores = dict[str, dict[str, float]]
_NAMES = ("accuracy", "MAE", "NLL", "ECE")


def score_model(model: Model, examples: Examples, seed: int, draws: int = 32) -> Scores:
    """Returns accuracy or mean absolute error, negative log-likelihood and expected calibration error, by head."""
    answers = compute_answers(model, examples, seed=seed, draws=draws if model.weights else 1)
    scores: Scores = {}
    for head in model.heads:
        target = examples.targets[head.name]
        known = head.is_known(target).numpy()
        rows = np.flatnonzero(known.reshape(len(known), -1).any(axis=1))
        if not len(rows):
            continue
        measures = measure_head(head, answers[head.name].rows(rows), target[rows], None)
        every = np.arange(len(rows))
        scores[head.name] = {name: measures.scores[name](every) for name in _NAMES if name in measures.scores}
    return scores
