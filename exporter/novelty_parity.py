"""Compares the novelty that a file gives with the model's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from probrt.exporter.formats import PrecisionSpec
from probrt.exporter.ranking import compute_ranking
from probrt.runtime.bundle.manifest import NOVELTY, NOVELTY_MAP, NOVELTY_QUANTITIES, ParityRecord
from probrt.trainer.novelty.score import Novelty

_SCORE, _P_VALUE, _MAP = (f"{NOVELTY}.{quantity}" for quantity in (*NOVELTY_QUANTITIES, NOVELTY_MAP))
# Of a p-value in float32.
_ROUNDING = 1e-5
# The features of many positions lie next to a prototype, where the logarithm magnifies rounding.
_POSITION = 50.0

Arrays = Mapping[str, npt.NDArray[Any]]


def compare_novelty(
    file: str, signature: str, answer: Arrays, expected: Arrays, precision: PrecisionSpec, novelty: Novelty
) -> tuple[list[ParityRecord], list[str]]:
    """Returns a record per output, and faults.

    A score may differ by `precision.novelty_tolerance`, as a part of itself or of 1, the standard deviation of the
    calibration images. A p-value may differ by what that means for it: it is a function of the score. The scores of an
    image's positions may differ by `precision.map_tolerance` in their root mean square; a single one by _POSITION times
    as much.
    """
    names = [_SCORE, _P_VALUE] + ([_MAP] if novelty.map else [])
    records, faults = [], []
    values, targets = (
        {name: np.asarray(arrays.get(name), np.float64) for name in names} for arrays in (answer, expected)
    )
    for name in names:
        if values[name].shape != targets[name].shape:
            faults.append(f"{name} is missing or has another shape than {list(targets[name].shape)}")
        elif not np.isfinite(values[name]).all():
            faults.append(f"{name} is not finite")
    if faults:
        return [], faults
    margins = _margins(targets[_SCORE], precision.novelty_tolerance)
    above, below = (_p_value(novelty, targets[_SCORE] + margin) for margin in (-margins, margins))
    slack = np.maximum(above - targets[_P_VALUE], targets[_P_VALUE] - below) + _ROUNDING
    all_allowed = {_SCORE: margins, _P_VALUE: slack}
    if novelty.map:
        per_position = _margins(targets[_MAP], precision.map_tolerance)
        all_allowed[_MAP] = _POSITION * per_position
        relative = (values[_MAP] - targets[_MAP]) / per_position
        worst_image = float(np.sqrt(np.square(relative).mean(axis=(1, 2))).max())
        if worst_image > 1:
            faults.append(f"{_MAP} differs by {worst_image:.2g} times what is allowed, in the root mean square")
    for name, allowed in all_allowed.items():
        differences = np.abs(values[name] - targets[name])
        worst = np.unravel_index(np.argmax(differences / allowed), differences.shape)
        ranking = None if name == _P_VALUE else compute_ranking(values[name], targets[name])
        if differences[worst] > allowed[worst]:
            faults.append(f"{name} differs by {differences[worst]:.2g}, allowed {allowed[worst]:.2g}")
        if ranking is not None and ranking < precision.least_ranking:
            faults.append(
                f"{name} ranks the images otherwise (rank correlation {ranking:.2f}, least {precision.least_ranking:g})"
            )
        records.append(
            ParityRecord(
                file=file,
                signature=signature,
                head=NOVELTY,
                quantity=name.partition(".")[2],
                absolute=float(differences.max()),
                relative=float(differences.max()) / max(float(np.abs(targets[name]).max()), 1e-30),
                tolerance=float(allowed.max()),
                ranking=ranking,
            )
        )
    return records, faults


def _margins(scores: npt.NDArray[np.float64], tolerance: float) -> npt.NDArray[np.float64]:
    return tolerance * np.maximum(1.0, np.abs(scores))


def _p_value(novelty: Novelty, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(novelty.p_value(tf.constant(scores, tf.float32)).numpy(), np.float64)
