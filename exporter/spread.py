"""Whether the draws of a file spread as those of the model do."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from probrt.exporter.formats import PrecisionSpec

# How far the average spread between draws may lie from the model's, as a part of it. Below _SMALL, in the unit of the
# quantity, rounding alone can be that much.
_SPREAD = 0.02
_SMALL = 1e-4

Values = npt.NDArray[np.float64]


def check_spread(name: str, values: Values, targets: Values, rounding: float, precision: PrecisionSpec) -> list[str]:
    """Returns what is wrong with an epistemic part: that it is rounding alone, or differs from the model's.

    values, targets: of the file and of the model, [images, ...]. rounding: the most that rounding alone makes of it.
    """
    if values.max() <= rounding:
        return [f"{name} is 0 everywhere but for rounding: the draws are all alike"]
    if _compare_averages(values, targets, precision) > 1:
        return [f"{name} is {values.mean():.3g} on average, the model's is {targets.mean():.3g}"]
    if precision.spread_error is None or targets.max() <= rounding:
        return []
    error = _measure_error(values, targets)
    if error <= precision.spread_error:
        return []
    return [
        f"{name} differs by {error:.0%} of the model's in the root mean square, allowed {precision.spread_error:.0%}: "
        "draws lie too close together for int8; leave it out of --precisions, or draws out of --variants"
    ]


def share_of_spread(values: Values, targets: Values, precision: PrecisionSpec) -> float:
    """Returns the larger part of what an epistemic part may differ by: in the average, and in the root mean square."""
    shares = [_compare_averages(values, targets, precision)]
    if precision.spread_error is not None and targets.max() > 0:
        shares.append(_measure_error(values, targets) / precision.spread_error)
    return max(shares)


def _compare_averages(values: Values, targets: Values, precision: PrecisionSpec) -> float:
    """Returns how far apart the averages are, as a part of what is allowed; 0 of a small one."""
    if targets.mean() <= _SMALL:
        return 0.0
    return float(abs(values.mean() / targets.mean() - 1)) / max(_SPREAD, precision.tolerance)


def _measure_error(values: Values, targets: Values) -> float:
    """Returns the root mean square difference, as a part of the model's, however small that is."""
    return float(np.sqrt(np.square(values - targets).mean() / np.square(targets).mean()))
