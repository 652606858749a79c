"""A fit ends with the last weights, the best weights, or their average."""

from __future__ import annotations

import keras
import numpy as np

from probrt.trainer.config.settings import FitSettings
from probrt.trainer.fit.checkpoints import FitState
from probrt.trainer.fit.weight_selection import WeightSelection

VALUES = (4.0, 1.0, 3.0, 8.0)
ELBOS = (-3.0, -1.0, -2.0, -2.5)


def run_epochs(settings: FitSettings) -> tuple[WeightSelection, FitState, keras.Variable]:
    """Gives a variable each of VALUES in turn and updates the selection with the ELBO of the same epoch."""
    variable = keras.Variable(np.zeros(2, np.float32))
    counter = keras.Variable(np.zeros((), np.int32), dtype="int32", trainable=False)
    selection, state = WeightSelection([variable, counter], settings), FitState()
    for epoch, (value, elbo) in enumerate(zip(VALUES, ELBOS, strict=True), start=1):
        variable.assign([value, -value])
        counter.assign(epoch)
        selection.update(state, epoch, elbo)
    return selection, state, variable


def test_the_last_weights_stay_by_default() -> None:
    selection, state, variable = run_epochs(FitSettings(epochs=4))
    assert not selection.assign()
    assert not selection.should_stop(state)
    np.testing.assert_array_equal(variable.numpy(), [8.0, -8.0])


def test_patience_selects_the_best_epoch() -> None:
    selection, state, variable = run_epochs(FitSettings(epochs=4, patience=2))
    assert (state.best, state.waited) == (-1.0, 2)
    assert selection.should_stop(state)
    assert not selection.assign()
    np.testing.assert_array_equal(variable.numpy(), [1.0, -1.0])


def test_average_selects_the_mean_of_the_last_epochs() -> None:
    selection, state, variable = run_epochs(FitSettings(epochs=4, average=0.5))
    assert state.averaged == 2
    assert selection.assign()
    np.testing.assert_array_equal(variable.numpy(), [5.5, -5.5])
    # Integers, such as the seeds of layers, keep their last value.
    np.testing.assert_array_equal(selection.variables[1].numpy(), 4)
