"""Numbers of a row: seven digits, and nothing that JSON lacks."""

import numpy as np
import pytest

from probrt.runtime.errors import ImageError
from probrt.runtime.rows.numbers import round_number, to_numbers


def test_numbers_keep_what_float32_holds() -> None:
    assert to_numbers(np.array([1 / 3, 2e-30])) == [0.3333333, 2e-30]
    assert to_numbers(np.array([[5.0]])) == 5.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_a_fault_of_the_image(value: float) -> None:
    with pytest.raises(ImageError, match="not finite"):
        round_number(value)
    with pytest.raises(ImageError, match="not finite"):
        to_numbers(np.array([[1.0, value]]))
