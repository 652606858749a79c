"""The terminal's view of a fit: a progress bar, and one line per epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from probrt.trainer.fit.loop import EpochReport
from probrt.trainer.fit.step import StepResult
from probrt.trainer.model import Model


@dataclass(frozen=True)
class FitDisplay:
    """Shows steps and epochs while `show_fit` is open.

    on_step: takes the step's number, the number of all steps and the result. on_epoch: takes the epoch's report.
    """

    on_step: Callable[[int, int, StepResult], None]
    on_epoch: Callable[[EpochReport], None]


@contextmanager
def show_fit(console: Console, model: Model) -> Iterator[FitDisplay]:
    """Shows a progress bar during the block."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("fitting", total=None, state="")
        metrics = ""

        def show_step(step: int, steps: int, result: StepResult) -> None:
            state = f"loss {result.loss:.3f}  KL {result.kl:,.0f}  {metrics}"
            progress.update(task, completed=step, total=steps, state=state)

        def show_epoch(report: EpochReport) -> None:
            nonlocal metrics
            metrics = "  ".join(
                f"{head.name} {head.metric_name} {report.metrics[head.name]:.4f}" for head in model.heads
            )
            epoch = f"epoch {report.epoch:3d}/{report.epochs}"
            losses = f"loss {report.loss:8.3f}  KL {report.kl:9,.0f}  ELBO {report.elbo:8.3f}"
            console.print(f"{epoch}  {losses}  {metrics}", soft_wrap=True)

        yield FitDisplay(show_step, show_epoch)
