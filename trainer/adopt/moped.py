"""MOPED: every kernel's posterior around its trained weight, then a few steps (Krishnan, Subedar and Tickoo 2020)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import numpy as np

from probrt.runtime.errors import ConfigError
from probrt.trainer.adopt.assemble import take
from probrt.trainer.config.settings import FitSettings
from probrt.trainer.data import Examples
from probrt.trainer.fit.loop import FitRun, fit_model
from probrt.trainer.fit.step import StepResult
from probrt.trainer.layers.from_keras import to_bayesian
from probrt.trainer.model import Model

_BATCH, _RATE = 32, 1e-3


def spread_kernels(network: keras.Model, *, last: int | None, delta: float) -> keras.Model:
    """Returns the network with kernels of mean w and standard deviation delta |w|, in its last layers or in all.

    Raises ConfigError for a network without such a layer.
    """
    try:
        return to_bayesian(network, last=last, delta=delta)
    except ValueError as error:
        raise ConfigError(f"moped: {error}") from None


def fit_steps(
    model: Model,
    train: Examples,
    validation: Examples,
    *,
    steps: int,
    seed: int,
    on_step: Callable[[int, int, StepResult], None],
) -> None:
    """Fits a model in place for some steps, each on up to 32 examples."""
    if not steps:
        return
    rows = np.sort(np.random.default_rng(seed).permutation(len(train))[: steps * _BATCH])
    part = take(train, rows)
    epochs = max(1, round(steps * _BATCH / len(part)))
    settings = FitSettings(epochs=epochs, batch=_BATCH, learning_rate=_RATE)
    run = dataclasses.replace(FitRun(seed=seed), on_step=on_step)
    for _ in fit_model(model, part, validation, settings=settings, run=run):
        pass
