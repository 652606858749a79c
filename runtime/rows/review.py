"""Which rows a person should look at: those more uncertain than a risk asked for allows."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.manifest import Manifest
from probrt.runtime.errors import UsageError

Answers = Mapping[str, Mapping[str, npt.NDArray[np.float32]]]


@dataclass(frozen=True)
class Review:
    """Head -> the largest total uncertainty, averaged over outputs and positions, that is let through unseen."""

    thresholds: Mapping[str, float]

    def flagged(self, answers: Answers | None) -> bool:
        """Whether any head of an image is above its threshold; an error row is, because nobody else looks at it."""
        if answers is None:
            return True
        return any(not answers[name]["total"].mean(dtype=np.float64) <= top for name, top in self.thresholds.items())


def review(manifest: Manifest, max_risk: float, samples: int) -> Review:
    """Of each head with a curve, the largest threshold whose risk on the validation split was at most `max_risk`.

    It is an empirical rate of the split, no bound (Geifman and El-Yaniv 2017 say what a bound would take).
    UsageError if the bundle holds no curve, or none that comes down to this risk; or if `samples`, the draws
    of the plan, are none.
    """
    if not 0 <= max_risk < 1:
        raise UsageError(f"--max-risk {max_risk:g}: a share of errors, from 0 to below 1, e.g. 0.02")
    if not samples:
        raise UsageError(f"--max-risk {max_risk:g}: the posterior mean knows no total uncertainty; ask for draws")
    curves = {one.head: one.risk for one in manifest.calibration if one.risk}
    if not curves:
        kinds = ", ".join(f"{head.name} ({head.likelihood})" for head in manifest.heads)
        raise UsageError(
            f"--max-risk {max_risk:g}: the bundle holds no risk curve, which `probrt train` writes for heads that can "
            f"be wrong; its heads: {kinds}; rank the rows by `total` instead"
        )
    thresholds = {}
    for name, curve in curves.items():
        allowed = [point.threshold for point in curve if point.risk <= max_risk]
        if not allowed:
            raise UsageError(
                f"--max-risk {max_risk:g}: {name} errs in {curve[0].risk:.4f} of its most certain "
                f"{curve[0].kept:.0%} already; ask for that or more"
            )
        thresholds[name] = max(allowed)
    return Review(thresholds)
