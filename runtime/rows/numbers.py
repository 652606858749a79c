"""Numbers of a row, as JSON has them."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from probrt.runtime.errors import ImageError

Row = dict[str, Any]


def round_number(value: float) -> float:
    """Rounds to seven significant digits, what float32 holds. Raises ImageError for what is not finite."""
    if not math.isfinite(value):
        raise ImageError("a number of the model's answer is not finite for this image")
    return float(f"{value:.7g}")


def to_numbers(values: npt.NDArray[np.floating]) -> Any:
    """Converts an array to nested lists of rounded numbers; an array, or a part of it, of one entry to a number."""
    if values.size == 1:
        return round_number(values.item())
    return [to_numbers(part) if part.ndim else round_number(part) for part in values]
