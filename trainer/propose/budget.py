"""Fits a draft into a time budget: a few trial steps choose the epochs, and the widths where they must."""

from __future__ import annotations

import contextlib
import math
import time

import keras
import msgspec

from probrt.trainer import data
from probrt.trainer.build import build_model
from probrt.trainer.calibration.calibrate import calibrate_model
from probrt.trainer.calibration.novelty import add_novelty
from probrt.trainer.config.config import Config
from probrt.trainer.data.examples import Dataset, Examples
from probrt.trainer.fit.loop import FitRun, fit_model
from probrt.trainer.novelty.fit import NoNovelty
from probrt.trainer.propose.draft import Draft

_TRIED_STEPS = 30
_FEWEST_EPOCHS, _MOST_EPOCHS, _NARROWEST = 10, 300, 8


class Trial(msgspec.Struct, frozen=True):
    """Seconds of a fit: of each epoch, and of what comes once (tracing, calibration, novelty)."""

    epoch: float
    once: float


def fit_budget(draft: Draft, config: Config, dataset: Dataset, minutes: float) -> Draft:
    """Returns the draft with as many epochs as fit into the minutes, narrower if fewer than ten would.

    The minutes are those that `train` reports: fit, calibration and novelty. config, dataset: of the draft.
    """
    seconds = 60 * minutes
    while True:
        trial = time_fit(config, dataset)
        epochs = math.floor((seconds - trial.once) / trial.epoch)
        widths = list(getattr(config.backbone, "widths", None) or ())
        if epochs >= _FEWEST_EPOCHS or not widths or max(widths) <= _NARROWEST:
            break
        widths = [max(_NARROWEST, width // 2) for width in widths]
        draft = draft.with_value("backbone", "widths", widths, f"halved: wider ones are too slow for {minutes:g} min")
        config = msgspec.structs.replace(
            config, backbone=msgspec.structs.replace(config.backbone, widths=tuple(widths))
        )
    epochs = min(max(1, epochs), _MOST_EPOCHS)
    reason = (
        f"{minutes:g} min here: {trial.epoch:.2g} s an epoch in {_TRIED_STEPS} trial steps, {trial.once:.0f} s once"
    )
    draft = draft.with_value("fit", "epochs", epochs, reason)
    if epochs < _FEWEST_EPOCHS:
        draft.notes.append(f"{epochs} epochs are few: give more minutes, or make input.shape smaller")
    return draft


def time_fit(config: Config, dataset: Dataset) -> Trial:
    """Times some steps of the fit of a config, its validation, calibration and novelty."""
    train, validation = dataset.splits["train"], dataset.splits["validation"]
    keras.utils.set_random_seed(config.seed)
    model = build_model(
        config.name,
        config.input,
        data.standardise_heads(config.heads, train),
        backbone=config.backbone,
        weights=config.weights,
        final_kernel=config.final.kernel,
    )
    batch = config.fit.batch
    tried = _take(train, min(len(train), batch * _TRIED_STEPS))
    per_epoch = len(tried) // batch or 1
    # The last epoch of the trial has steps and validation without the time that tracing takes.
    epochs = max(2, 1 + math.ceil(_TRIED_STEPS / per_epoch))
    settings = msgspec.structs.replace(config.fit, epochs=epochs, average=0.0, patience=0)
    step_ends: list[float] = []
    run = FitRun(seed=config.seed, augmentation=config.data, on_step=lambda *_: step_ends.append(time.monotonic()))
    start = time.monotonic()
    epoch_ends = [time.monotonic() for _ in fit_model(model, tried, validation, settings=settings, run=run)]
    in_epoch = math.ceil(len(tried) / batch)
    first_of_last = len(step_ends) - in_epoch
    last_step = step_ends[-1]
    validated = epoch_ends[-1] - last_step
    step = (last_step - epoch_ends[-2]) / (len(step_ends) - first_of_last)
    tracing = max(0.0, epoch_ends[0] - start - in_epoch * step - validated)
    calibration_start = time.monotonic()
    calibrated = calibrate_model(model, validation, config.seed)
    with contextlib.suppress(NoNovelty):
        add_novelty(calibrated, train, validation, config.seed)
    once = tracing + time.monotonic() - calibration_start
    return Trial(math.ceil(len(train) / batch) * step + validated, once)


def _take(examples: Examples, count: int) -> Examples:
    targets = {name: values[:count] for name, values in examples.targets.items()}
    return Examples(examples.files[:count], examples.images[:count], targets)
