"""What a row says of one image: labels, sets and intervals out of a prediction."""

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from probrt.runtime.combine import over_classes
from probrt.runtime.errors import BundleError
from probrt.runtime.manifest import Conformal, Head, Manifest
from probrt.runtime.predictor import Answer

COVERAGE = 0.9

Row = dict[str, Any]


def head_row(head: Head, answer: Mapping[str, npt.NDArray[np.float32]], conformal: Conformal | None) -> Row:
    """What a row says under one head that has no positions; arrays without the batch.

    A quantity of one entry is a number, of several a list. Class heads add label and probability, and
    the conformal set if calibrated; Bernoulli heads the labels at 0.5 or more; real-valued heads an
    interval: conformal if calibrated, else that of a normal with variance total, and its coverage.
    """
    row: Row = {name: numbers(values) for name, values in answer.items()}
    mean = answer["mean"].astype(np.float64)
    if head.combine == "variance":
        if "total" in answer or "aleatoric" in answer:
            spread = np.sqrt(answer.get("total", answer.get("aleatoric")).astype(np.float64))  # type: ignore[union-attr]
            low, high, coverage = interval(mean, spread, conformal)
            row["interval"] = [numbers(low), numbers(high)] if mean.size == 1 else numbers(np.stack([low, high], -1))
            row["coverage"] = coverage
    elif over_classes(head):
        best = int(mean.argmax())
        row |= {"label": head.labels[best], "probability": number(mean[best])}
        if conformal is not None:
            row |= {"set": [head.labels[i] for i in class_set(mean, conformal)], "coverage": conformal.coverage}
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


def interval(
    mean: npt.NDArray[np.float64], spread: npt.NDArray[np.float64], conformal: Conformal | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]:
    """Lower and upper end and their coverage.

    scaled: mean ± threshold · root of total variance; absolute: mean ± threshold (split conformal,
    Lei et al. 2018); without calibration the quantile of a normal.
    """
    if conformal is None:
        half, coverage = spread * NormalDist().inv_cdf(0.5 + COVERAGE / 2), COVERAGE
    elif conformal.method == "scaled":
        half, coverage = spread * conformal.threshold, conformal.coverage
    else:
        half, coverage = np.full_like(mean, conformal.threshold), conformal.coverage
    return mean - half, mean + half, coverage


def class_set(probabilities: npt.NDArray[np.float64], conformal: Conformal) -> list[int]:
    """Classes of the conformal set, likeliest first.

    lac: all with 1 - p at most the threshold (Sadinle et al. 2019); aps: the likeliest until their sum
    reaches the threshold (Romano et al. 2020, without randomisation). Never empty: the likeliest is in it.
    """
    order = [int(i) for i in np.argsort(-probabilities, kind="stable")]
    if conformal.method == "lac":
        return [i for i in order if 1 - probabilities[i] <= conformal.threshold] or order[:1]
    before = np.concatenate([[0.0], np.cumsum(probabilities[order])[:-1]])
    return [i for i, sum_before in zip(order, before, strict=True) if sum_before < conformal.threshold] or order[:1]


def conformal_of(manifest: Manifest, coverage: float | None = None) -> dict[str, Conformal]:
    """Each calibrated head's threshold: of the coverage asked for, else of COVERAGE, else its first.

    Raises BundleError for a method that this version does not know.
    """
    found = {}
    for calibration in manifest.calibration:
        head = manifest.head(calibration.head)
        known = ("scaled", "absolute") if head.combine == "variance" else ("lac", "aps")
        wanted = COVERAGE if coverage is None else coverage
        choices = [c for c in calibration.conformal if math.isclose(c.coverage, wanted)]
        choices = choices or (calibration.conformal if coverage is None else [])
        for choice in choices[:1]:
            if choice.method not in known:
                raise BundleError(
                    f"calibration of {head.name}: method {choice.method!r} is unknown (known: {', '.join(known)}); "
                    "upgrade probrt"
                )
            found[head.name] = choice
    return found


def at(answer: Answer, index: int) -> dict[str, npt.NDArray[np.float32]]:
    """One image's quantities."""
    return {name: values[index] for name, values in answer.quantities().items()}
