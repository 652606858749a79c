"""Which rows need more draws, and the answer over the draws that a row has."""

from collections.abc import Mapping
from itertools import accumulate

import numpy as np

from probrt.runtime.bundle.manifest import NOVELTY, NOVELTY_QUANTITIES, HeadRecord, Manifest
from probrt.runtime.predict.answer import Novelty
from probrt.runtime.predict.choose import Plan
from probrt.runtime.predict.combine import Combiner, combine_chunks, standard_error
from probrt.runtime.predict.running import RunningAnswer
from probrt.runtime.rows.earlier import count_draws
from probrt.runtime.rows.numbers import Row


def needs_draws(row: Row, manifest: Manifest, tolerances: Mapping[str, float]) -> bool:
    """Whether a good row is flagged for review, or the standard error of a head is above its tolerance.

    A row of the posterior mean has no standard error, and is above every tolerance. Heads per position are left out:
    their rows hold files.
    """
    if row.get("review"):
        return True
    for head in manifest.heads:
        if head.name in tolerances and not head.per_position:
            epistemic = row["heads"].get(head.name, {}).get("epistemic")
            if epistemic is None:
                return True
            values = np.asarray(epistemic, np.float64)[np.newaxis]
            if standard_error(head.kind, values, count_draws(row))[0] > tolerances[head.name]:
                return True
    return False


def restore_answer(row: Row, manifest: Manifest, plan: Plan) -> RunningAnswer | None:
    """Returns the answer over the draws of a row, as exact as its seven digits; None if they must be computed again.

    So it is where the files or the arithmetic are of another precision than the plan's, where the row's draws are not
    those of the plan's first calls, where a signature answers for all draws at once, and where a head is per position.
    """
    ends = set(accumulate(call.draws.count for call in plan.calls if call.draws))
    draws = count_draws(row)
    if not plan.source.in_chunks or draws not in ends or row.get("precision", "float32") != plan.precision:
        return None
    if any(head.per_position for head in manifest.heads):
        return None
    combiners = [_restore_head(head, row["heads"].get(head.name, {}), draws) for head in manifest.heads]
    novelty = _restore_novelty(row)
    if None in combiners or (novelty is None and manifest.novelty is not None):
        return None
    return RunningAnswer([combiner for combiner in combiners if combiner is not None], novelty)


def _restore_head(head: HeadRecord, values: Row, draws: int) -> Combiner | None:
    """Returns what `draws` draws of one image have come to; None if the row lacks a number."""
    outputs = {}
    for name, shape in head.outputs.items():
        try:
            outputs[f"{head.name}.{name}"] = np.asarray(values[name], np.float64).reshape(1, *map(_side, shape))
        except (KeyError, TypeError, ValueError):
            return None
    combiner = combine_chunks(head)
    combiner.add(outputs, draws)
    return combiner


def _side(side: int | None) -> int:
    return -1 if side is None else side


def _restore_novelty(row: Row) -> Novelty | None:
    values = row.get(NOVELTY) or {}
    if any(not isinstance(values.get(name), float | int) for name in NOVELTY_QUANTITIES):
        return None
    return Novelty(*(np.array([values[name]], np.float32) for name in NOVELTY_QUANTITIES))
