"""Evaluates a model directory: scores with intervals, curves, and the mistakes that the model was certain of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from probrt.runtime.bundle.manifest import Calibration
from probrt.runtime.errors import DataError
from probrt.runtime.time_left import ShowProgress
from probrt.trainer import store
from probrt.trainer.data import Examples
from probrt.trainer.evaluate.answers import Answers, compute_answers, compute_novelty
from probrt.trainer.evaluate.measures import BIASED, Measures, measure_head, risk_curve
from probrt.trainer.evaluate.outliers import (
    choose_level,
    compute_measures,
    list_measures,
    score_strangers,
    share_unknown,
)
from probrt.trainer.evaluate.report import Coverage, HeadReport, Interval, Mistake, Report
from probrt.trainer.evaluate.scores import bootstrap
from probrt.trainer.evaluate.source import read_images, read_scored_split
from probrt.trainer.heads import AnyHead
from probrt.trainer.model import Model

RISKS = (0.005, 0.01, 0.02, 0.05, 0.1)
_MISTAKES = 12
# The share of the time that the answers take, the rest being scores and their intervals: seen on the examples.
_ANSWERS = 0.7
_SEED = 0


def evaluate_model(
    folder: Path,
    *,
    other: Path | None,
    ood: Mapping[str, Path],
    draws: int,
    resamples: int,
    calibrated: bool = True,
    on_step: ShowProgress = lambda step, share: None,
) -> tuple[Report, Examples, Model]:
    """Evaluates a model directory; also returns the examples and the model.

    other: a data folder to score instead of the model's own test split. ood: folders of images of other kinds, by name.
    resamples: of each bootstrap interval. calibrated: whether temperatures, scales and thresholds of the model apply.
    on_step: takes what it does, and the share of the whole that is done.
    Raises ConfigError if the model does not name its data, DataError for data that cannot be read or have no target.
    """
    model, stored = store.load_model(folder)
    if not calibrated:
        model = dataclasses.replace(model, calibration=())
    scored = read_scored_split(folder, stored, other)
    examples, notes = scored.examples, [*scored.notes]
    unknown = [head.name for head in model.heads if not head.is_known(examples.targets[head.name]).numpy().any()]
    if len(unknown) == len(model.heads):
        raise DataError(
            f"{other or folder}: no example has a target of {', '.join(unknown)}: there is nothing to score"
        )
    if unknown:
        notes.append(f"no example has a target of {', '.join(unknown)}")
    outer_images = {}
    for name, stranger_folder in ood.items():
        outer_images[name], skipped = read_images(stranger_folder, model.input)
        if skipped:
            notes.append(f"{len(skipped)} files of {stranger_folder} cannot be read, such as {skipped[0]}")
    total, answered = len(examples) + sum(map(len, outer_images.values())), 0

    def count_images(count: int) -> None:
        nonlocal answered
        answered += count
        on_step(f"answers for {answered} of {total} images", _ANSWERS * answered / total)

    answers = compute_answers(model, examples, seed=_SEED, draws=draws, on_images=count_images)
    if not calibrated:
        notes.append("without the temperatures and scales of the model, and so without sets of its thresholds")
    novelty, level = compute_novelty(model, examples), choose_level(model.novelty)
    inside = list_measures(answers, novelty)
    strangers = []
    for name, images in outer_images.items():
        outer_novelty = compute_novelty(model, images)
        outer = compute_measures(model, images, outer_novelty, seed=_SEED, draws=draws, on_images=count_images)
        strangers.append(score_strangers(name, inside, outer, outer_novelty, level, seed=_SEED, resamples=resamples))
    calibration = {record.head: record for record in model.calibration}
    reports = []
    for position, head in enumerate(model.heads):
        on_step(f"scores of {head.name}", _ANSWERS + (1 - _ANSWERS) * position / len(model.heads))
        record = calibration.get(head.name)
        reports.append(_report_head(head, examples, answers[head.name], calibration=record, resamples=resamples))
    report = Report(
        model=model.name,
        split=scored.split,
        examples=len(examples),
        draws=draws,
        data_digest=scored.digest,
        notes=notes,
        heads=[report for report in reports if report is not None],
        level=level,
        unknown=share_unknown(novelty, level),
        strangers=strangers,
    )
    return report, examples, model


def _report_head(
    head: AnyHead,
    examples: Examples,
    answers: Answers,
    *,
    calibration: Calibration | None,
    resamples: int,
) -> HeadReport | None:
    """Reports one head on the examples that have a target; None if none has."""
    target = examples.targets[head.name]
    known = head.is_known(target).numpy()
    rows = np.flatnonzero(known.reshape(len(known), -1).any(axis=1))
    if not len(rows):
        return None
    scored = answers.rows(rows)
    measures = measure_head(head, scored, target[rows], calibration)
    curve = risk_curve(measures)
    return HeadReport(
        name=head.name,
        likelihood=head.likelihood,
        loss=measures.loss_name,
        scores=_estimate_scores(measures, len(rows), resamples),
        coverage=[
            Coverage(
                method=sets.method,
                wanted=sets.wanted,
                held=bootstrap(sets.held, len(rows), _SEED, resamples),
                size=sets.size and bootstrap(sets.size, len(rows), _SEED, resamples),
            )
            for sets in measures.sets
        ],
        risk=curve,
        review={f"{risk:g}": _review_threshold(curve, risk) for risk in RISKS},
        wrong=_list_mistakes(head, examples, scored, measures, rows),
        **measures.curves,
    )


def _estimate_scores(measures: Measures, count: int, resamples: int) -> dict[str, Interval]:
    """Returns each score with its interval; without one for a biased score, whose interval would not hold it."""
    estimates: dict[str, Interval] = {}
    for name, score in measures.scores.items():
        if name in BIASED:
            estimates[name] = (score(np.arange(count)), np.nan, np.nan)
            estimates |= {key: error.estimate(_SEED, resamples) for key, error in measures.calibration.items()}
        else:
            estimates[name] = bootstrap(score, count, _SEED, resamples)
    return estimates


def _review_threshold(curve: list[tuple[float, float, float]], limit: float) -> tuple[float, float] | None:
    """The largest threshold whose risk is within a limit, and its coverage; None if there is none."""
    return max(((threshold, coverage) for coverage, risk, threshold in curve if risk <= limit), default=None)


def _list_mistakes(
    head: AnyHead, examples: Examples, answers: Answers, measures: Measures, rows: np.ndarray
) -> list[Mistake]:
    """The first of the surest mistakes. rows: of the split, in the order of answers and measures."""
    mistakes = []
    for place in measures.surest_mistakes[:_MISTAKES]:
        row = int(rows[place])
        truth = said = ""
        if not head.per_position:
            truth = head.describe_target(examples.targets[head.name][row])
            said = head.describe_mean(answers.mean[place])
        mistakes.append(
            Mistake(
                row=row,
                file=examples.files[row],
                truth=truth,
                said=said,
                uncertainty=float(measures.uncertainty[place]),
                loss=float(measures.loss[place]),
            )
        )
    return mistakes
