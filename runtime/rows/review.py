"""Which rows a person should look at: those more uncertain than the accepted risk allows."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from probrt.runtime.bundle.manifest import Manifest
from probrt.runtime.errors import UsageError
from probrt.runtime.rows.kinds import Values

Quantities = Mapping[str, Mapping[str, Values]]


@dataclass(frozen=True)
class Review:
    """Flags rows by their total uncertainty.

    thresholds: by head, the largest total uncertainty, averaged over outputs and positions, that needs no review.
    """

    thresholds: Mapping[str, float]

    def needs_review(self, quantities: Quantities | None) -> bool:
        """Whether any head of an image, head -> quantity -> values, is above its threshold.

        None, an image without an answer, is flagged, because nobody else looks at it.
        """
        if quantities is None:
            return True
        # Not `>`: a total that is not a number is above every threshold.
        return any(
            not quantities[name]["total"].mean(dtype=np.float64) <= largest for name, largest in self.thresholds.items()
        )


def choose_review(manifest: Manifest, max_risk: float, samples: int) -> Review:
    """The review of each head with a risk curve: its largest threshold with a risk of at most `max_risk`.

    The risk is an empirical rate of the validation split, no bound; Geifman and El-Yaniv 2017 show what a bound would
    take. samples: the draws per image.
    Raises UsageError if the bundle holds no risk curve, or none that comes down to this risk; or for no draws.
    """
    if not 0 <= max_risk < 1:
        raise UsageError(f"--max-risk {max_risk:g}: a share of errors, from 0 to below 1, e.g. 0.02")
    if not samples:
        raise UsageError(f"--max-risk {max_risk:g}: the posterior mean knows no total uncertainty; ask for draws")
    curves = {calibration.head: calibration.risk for calibration in manifest.calibration if calibration.risk}
    if not curves:
        heads = ", ".join(f"{head.name} ({head.likelihood})" for head in manifest.heads)
        raise UsageError(
            f"--max-risk {max_risk:g}: the bundle holds no risk curve, which `probrt train` writes for heads that can "
            f"be wrong; its heads: {heads}; rank the rows by `total` instead"
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
