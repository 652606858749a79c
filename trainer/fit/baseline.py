"""Finds heads that have learned nothing: on the validation split they are no better than one answer for all images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from probrt.trainer.data import Examples
from probrt.trainer.fit.validation import Scores
from probrt.trainer.heads import AnyHead

_BATCH = 256


def note_unlearned(heads: Sequence[AnyHead], train: Examples, validation: Examples, scores: Scores) -> list[str]:
    """Returns a note for each head whose scores on the validation split are no better than those of one answer.

    That answer is the most frequent class of the training targets, or their mean. A difference counts from two standard
    errors of the paired differences. A head whose training targets are all the same can do no better, and gets none.
    scores: of the validation split, by head.
    """
    notes = []
    for head in heads:
        constant, name = _constant_answer(head, train.targets[head.name])
        if constant is None or len(scores[head.name]) < 2:
            continue
        baseline = _score_constant(head, constant, validation.targets[head.name])
        gains = (scores[head.name] - baseline) * (1 if head.higher_is_better else -1)
        if gains.mean() > 2 * gains.std(ddof=1) / np.sqrt(len(gains)):
            continue
        notes.append(
            f"{head.name}: has learned nothing: its {head.metric_name} on the validation split is "
            f"{scores[head.name].mean():.4g}, no better, beyond chance, than that of always answering {name}, "
            f"{baseline.mean():.4g}; train longer, with another fit.learning_rate or kl_weight, or give the head a "
            "larger weight"
        )
    return notes


def _constant_answer(head: AnyHead, targets: np.ndarray) -> tuple[np.ndarray | None, str]:
    """Returns the predictive mean at one position that is best without an image, and its name for people.

    None where all targets are the same.
    """
    if head.kind == "class":
        counts = np.array(list(head.count_classes(targets).values()))
        best = int(counts.argmax())
        return (np.eye(len(counts), dtype=np.float32)[best] if (counts > 0).sum() > 1 else None), head.names[best]
    values = targets.reshape(-1, targets.shape[-1])
    values = values[np.isfinite(values).all(axis=1)]
    if not len(values) or (values == values[0]).all():
        return None, ""
    mean = values.mean(axis=0, dtype=np.float64).astype(np.float32)
    if head.kind == "binary":
        return (mean > 0.5).astype(np.float32), "the more frequent of yes and no"
    return mean, "the mean"


def _score_constant(head: AnyHead, constant: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Scores one answer on every example that has a target."""
    parts = []
    for start in range(0, len(targets), _BATCH):
        part = targets[start : start + _BATCH]
        sides = part.shape if head.kind == "class" else part.shape[:-1]
        parts.append(head.metric(np.broadcast_to(constant, [*sides, len(constant)]), part).numpy())
    return np.concatenate(parts)
