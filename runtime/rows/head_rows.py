"""What a row says of one image: labels, sets and intervals out of a prediction."""

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.conformal import INTERVAL_METHODS, SET_METHODS, class_sets, intervals, rank_classes
from probrt.runtime.bundle.manifest import Conformal, HeadRecord, Manifest
from probrt.runtime.errors import BundleError, UsageError
from probrt.runtime.predict.combine import over_classes
from probrt.runtime.predict.predictor import Answer

COVERAGE = 0.9

Row = dict[str, Any]


def head_row(head: HeadRecord, answer: Mapping[str, npt.NDArray[np.float32]], promise: Conformal | None) -> Row:
    """What a row says under one head that has no positions; arrays without the batch.

    A quantity of one entry is a number, of several a list. Class heads add label and probability, and
    the conformal set if calibrated; Bernoulli heads the labels at 0.5 or more; real-valued heads an
    interval and its coverage, by `promise` (of `promises`).
    """
    row: Row = {name: numbers(values) for name, values in answer.items()}
    mean = answer["mean"].astype(np.float64)
    if head.combine == "variance":
        if promise is not None and ("total" in answer or "aleatoric" in answer):
            variance = answer.get("total", answer.get("aleatoric"))
            low, high = intervals(mean, np.sqrt(np.asarray(variance, np.float64)), promise)
            row["interval"] = [numbers(low), numbers(high)] if mean.size == 1 else numbers(np.stack([low, high], -1))
            row["coverage"] = promise.coverage
    elif over_classes(head):
        best = int(mean.argmax())
        row |= {"label": head.labels[best], "probability": number(mean[best])}
        if promise is not None:
            inside = class_sets(mean[np.newaxis], promise)[0]
            ranked = [int(index) for index in rank_classes(mean[np.newaxis])[0] if inside[index]]
            row |= {"set": [head.labels[index] for index in ranked], "coverage": promise.coverage}
    else:
        row["label"] = [label for label, p in zip(head.labels, mean.ravel(), strict=False) if p >= 0.5]
    return row


def numbers(values: npt.NDArray[np.floating]) -> Any:
    """Nested lists of seven significant digits, what float32 holds; a single entry as a number."""
    if values.size == 1:
        return number(values.item())
    return [numbers(part) if part.ndim else number(part) for part in values]


def number(value: float) -> float:
    return float(f"{value:.7g}")


def promises(manifest: Manifest, coverage: float | None = None) -> dict[str, Conformal]:
    """What makes each head's sets or intervals: its calibrated threshold at the coverage asked for.

    If none is asked for, that of COVERAGE, else its first. A real-valued head without any has the quantile of
    a normal; another head without any has none.
    Raises UsageError for a coverage that a calibrated head has not, BundleError for a method that this version
    does not know.
    """
    wanted = COVERAGE if coverage is None else coverage
    if not 0 < wanted < 1:
        raise UsageError(f"--coverage {wanted:g}: a share, above 0 and below 1, e.g. 0.9")
    normal = Conformal(coverage=wanted, method="scaled", threshold=NormalDist().inv_cdf(0.5 + wanted / 2))
    found = {head.name: normal for head in manifest.heads if head.combine == "variance"}
    for calibration in manifest.calibration:
        if not calibration.conformal:
            continue
        head = manifest.head(calibration.head)
        choices = [c for c in calibration.conformal if math.isclose(c.coverage, wanted)]
        if not choices and coverage is not None:
            has = ", ".join(f"{c.coverage:g}" for c in calibration.conformal)
            raise UsageError(f"--coverage {coverage:g}: {head.name} is calibrated for {has}; choose one of them")
        choice = (choices or calibration.conformal)[0]
        known = INTERVAL_METHODS if head.combine == "variance" else SET_METHODS
        if choice.method not in known:
            raise BundleError(
                f"calibration of {head.name}: method {choice.method!r} is unknown (known: {', '.join(known)}); "
                "upgrade probrt"
            )
        found[head.name] = choice
    if coverage is not None and not found:
        raise UsageError(f"--coverage {coverage:g}: no head of the bundle is calibrated; leave it out")
    return found


def at(answer: Answer, index: int) -> dict[str, npt.NDArray[np.float32]]:
    """One image's quantities."""
    return {name: values[index] for name, values in answer.quantities().items()}
