"""The terminal's view of a training: how far all of it is, and one line per epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console

from probrt.runtime.time_left import show_progress
from probrt.trainer.data import Examples
from probrt.trainer.fit.loop import EpochReport
from probrt.trainer.fit.step import StepResult
from probrt.trainer.model import Model

# What an image costs, in forward passes: a training step, the validation after an epoch, calibration (16 draws, twice,
# and the mean) and the novelty's features.
_STEP, _VALIDATION, _CALIBRATION, _FEATURES = 3.0, 3.0, 33.0, 1.0
# Seconds that tracing the graphs of calibration, novelty and scores takes.
_TRACING = 10.0


@dataclass
class RunShare:
    """Estimates the share of a training that is done, from what its images cost in forward passes.

    train, validation, test: numbers of images. clock: returns seconds.
    """

    train: int
    validation: int
    test: int
    clock: Callable[[], float] = time.monotonic
    _start: float = field(init=False)
    _first_step: int | None = None
    _fit_seconds: float = 0.0
    _after_seconds: float = 0.0

    def __post_init__(self) -> None:
        self._start = self.clock()

    def after_step(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """Returns the share after a step of the fit, 0 to 1. A continued fit begins at its first step here."""
        if self._first_step is None:
            self._first_step = step - 1
        per_step = (_STEP * self.train + _VALIDATION * self.validation) / steps_per_epoch
        after = _CALIBRATION * self.validation + _FEATURES * self.train + self.test
        self._fit_seconds = self.clock() - self._start
        seconds_per_pass = self._fit_seconds / ((step - self._first_step) * per_step)
        self._after_seconds = after * seconds_per_pass + _TRACING
        left = (steps - step) * per_step * seconds_per_pass + self._after_seconds
        return self._fit_seconds / max(self._fit_seconds + left, 1e-9)

    def after_fit(self, share: float) -> float:
        """Returns the share of the whole, given that of what follows the fit."""
        whole = self._fit_seconds + self._after_seconds
        return (self._fit_seconds + share * self._after_seconds) / max(whole, 1e-9)


@dataclass(frozen=True)
class TrainingDisplay:
    """Shows a training while `show_training` is open.

    on_step: takes the step's number, the number of all steps and the result. on_epoch: takes the epoch's report.
    on_stage: takes what follows the fit, in words, and the share of that which is done.
    """

    on_step: Callable[[int, int, StepResult], None]
    on_epoch: Callable[[EpochReport], None]
    on_stage: Callable[[str, float], None]


@contextmanager
def show_training(
    console: Console, model: Model, splits: Mapping[str, Examples], epochs: int
) -> Iterator[TrainingDisplay]:
    """Shows the progress of a training, from the first step to the scores, during the block."""
    counts = {name: len(examples) for name, examples in splits.items()}
    shares = RunShare(counts["train"], counts["validation"], counts.get("test", 0))
    with show_progress(console, "train") as show:
        metrics = ""

        def show_step(step: int, steps: int, result: StepResult) -> None:
            share = shares.after_step(step, steps, max(1, steps // epochs))
            epoch = 1 + (step - 1) * epochs // steps
            show(f"epoch {epoch}/{epochs}  loss {result.loss:.3f}  {metrics}".rstrip(), share)

        def show_epoch(report: EpochReport) -> None:
            nonlocal metrics
            metrics = "  ".join(
                f"{head.name} {head.metric_name} {report.metrics[head.name]:.4f}" for head in model.heads
            )
            epoch = f"epoch {report.epoch:3d}/{report.epochs}"
            losses = f"loss {report.loss:8.3f}  KL {report.kl:9,.0f}  ELBO {report.elbo:8.3f}"
            console.print(f"{epoch}  {losses}  {metrics}", soft_wrap=True)

        def show_stage(text: str, share: float) -> None:
            show(text, shares.after_fit(share))

        yield TrainingDisplay(show_step, show_epoch, show_stage)
