"""Which weights a fit ends with: those of the last epoch, of the best epoch, or an average over the last epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import keras
import numpy as np

from probrt.trainer.config.settings import FitSettings
from probrt.trainer.fit.checkpoints import FitState


@dataclass
class WeightSelection:
    """Collects the best or the averaged values of some variables, as the settings ask for.

    best: values at the highest validation ELBO so far (`patience`). average: running average over the last epochs
    (`average`; Izmailov et al. 2018). Both are empty until there is an epoch to collect.
    """

    variables: Sequence[keras.Variable]
    settings: FitSettings
    best: list[np.ndarray] = field(default_factory=list)
    average: list[np.ndarray] = field(default_factory=list)

    def update(self, state: FitState, epoch: int, elbo: float) -> None:
        """Collects the values after an epoch, counted from 1, and updates the state's `best`, `waited`, `averaged`."""
        if self.settings.patience:
            if state.best is None or elbo > state.best:
                state.best, state.waited = elbo, 0
                self.best = copy_values(self.variables)
            else:
                state.waited += 1
        if self.settings.average and epoch > self.settings.epoch_count * (1 - self.settings.average):
            state.averaged += 1
            values = copy_values(self.variables)
            previous = self.average or [np.zeros_like(value) for value in values]
            # Integers (the seeds of layers) are copied, not averaged.
            self.average = [
                old + (new - old) / state.averaged if new.dtype.kind == "f" else new
                for old, new in zip(previous, values, strict=True)
            ]

    def should_stop(self, state: FitState) -> bool:
        """Whether `patience` epochs have passed without a better validation ELBO."""
        return bool(self.settings.patience) and state.waited >= self.settings.patience

    def assign(self) -> bool:
        """Assigns the selected values to the variables. Returns whether they are an average."""
        selected = self.best if self.settings.patience else self.average
        if selected:
            assign_values(self.variables, selected)
        return bool(selected) and not self.settings.patience


def copy_values(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    """Returns copies of the variables' values."""
    return [np.array(variable.numpy()) for variable in variables]


def assign_values(variables: Sequence[keras.Variable], values: Sequence[np.ndarray]) -> None:
    """Assigns a value to each variable."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
