"""Fitting: the loop over steps and epochs, what it keeps, and how it stops.

What happens at a step depends on the variables, the optimizers' state and the step's number alone: order of the data,
augmentation and draws are named by it. So a fit that goes on from a checkpoint is the fit that was never stopped.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

import keras
import numpy as np
import tensorflow as tf

from probrt.runtime.errors import Fault
from probrt.trainer import data
from probrt.trainer.config.settings import Augmentation, FitSettings
from probrt.trainer.data import Examples
from probrt.trainer.fit.checkpoints import Checkpoints, State
from probrt.trainer.fit.nonfinite import culprit
from probrt.trainer.fit.objective import Objective
from probrt.trainer.fit.step import Stepped, divergence, groups, stepper
from probrt.trainer.keras_internals import flatten_layers
from probrt.trainer.model import Model
from probrt.trainer.variational.estimators import TrainingHandler
from probrt.trainer.variational.handlers import DrawHandler, MeanHandler, use_handler

# Of the validation ELBO: enough for its mean over hundreds of examples, cheap enough for every epoch.
_ELBO_DRAWS = 2


@dataclass(frozen=True)
class EpochReport:
    """Where a fit stands after an epoch (means over its steps; metrics and ELBO, in nats per example, on the
    validation split)."""

    epoch: int
    epochs: int
    step: int
    loss: float
    kl: float
    elbo: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class Run:
    """What a fit is told besides model, data and settings.

    identity: digest of config and data. checkpoints: where to keep them. resume: whether to go on from the newest.
    stepped: called after each step with its number, the number of all, and what it gave.
    """

    seed: int
    augmentation: Augmentation = field(default_factory=Augmentation)
    identity: str = ""
    checkpoints: Checkpoints | None = None
    resume: bool = False
    writes: bool = True
    stepped: Callable[[int, int, Stepped], None] = lambda step, steps, stepped: None


def fit(model: Model, train: Examples, validation: Examples, settings: FitSettings, run: Run) -> Iterator[EpochReport]:
    """Fits the model's variables in place, giving progress after each epoch.

    On SIGTERM and SIGINT the step is finished and a checkpoint written; then the signal takes its course.
    Raises Fault, with step, head and layer, when loss or gradient are no longer finite.
    """
    per_epoch = math.ceil(len(train) / settings.batch)
    steps = per_epoch * settings.epochs
    objective = Objective(model, settings.loss_weights, settings.l1, settings.l2)
    optimizers = groups(model, objective, settings, steps)
    step_function = stepper(model, objective, optimizers, settings, len(train), steps, run.seed)
    metrics, bound = evaluator(model), elbo(model, objective, settings, len(train), run.seed)
    keeper = _Keeper(model, objective, [group.optimizer for group in optimizers], run)
    state = keeper.restored() if run.resume else State(run=run.identity)
    started = time.monotonic() - state.seconds
    made = data.batches(
        train, settings.batch, run.seed, run.augmentation, model.heads, model.input, range(state.step, steps)
    )
    with _signals() as asked:
        for one in made:
            if _patience_over(state, settings):
                break
            found = step_function(one, state.step)
            if not found.finite:
                raise Fault(_not_finite(model, objective, one, run, state, settings, found))
            state.step += 1
            state.sums = (state.sums[0] + found.loss, state.sums[1] + found.kl)
            run.stepped(state.step, steps, found)
            epoch, rest = divmod(state.step, per_epoch)
            progress = None
            if not rest:
                loss, kl = (total / per_epoch for total in state.sums)
                scores = bound(validation), metrics(validation)
                progress = EpochReport(epoch, settings.epochs, state.step, loss, kl, *scores)
                keeper.epoch(state, progress, settings)
                state.sums = (0.0, 0.0)
            due = state.step % settings.checkpoint == 0 if settings.checkpoint else progress is not None
            if due or asked:
                state.seconds = time.monotonic() - started
                keeper.save(state)
            if asked:
                number, before = asked[0]
                signal.signal(number, before)
                signal.raise_signal(number)
            if progress:
                yield progress
    if keeper.finish(state, settings):
        _refresh_statistics(model, train, settings, run)


def evaluator(model: Model, batch: int = 256) -> Callable[[Examples], dict[str, float]]:
    """A function of a split that gives each head's metric at the posterior mean, NaN where no example has a target."""

    @tf.function(reduce_retracing=True, autograph=False)
    def scored(one: dict) -> dict[str, tf.Tensor]:
        with use_handler(MeanHandler()):
            moments = model.moments(one["images"])
        return {head.name: head.metric(moments[head.name].mean, one["targets"][head.name]) for head in model.heads}

    def metrics(examples: Examples) -> dict[str, float]:
        scores: dict[str, list[np.ndarray]] = {head.name: [] for head in model.heads}
        for one in data.evaluation_batches(examples, batch):
            for name, score in scored(one).items():
                scores[name].append(score.numpy())
        found = {name: np.concatenate(score) for name, score in scores.items()}
        return {name: float(np.mean(score)) if len(score) else math.nan for name, score in found.items()}

    return metrics


def elbo(
    model: Model, objective: Objective, settings: FitSettings, count: int, seed: int, batch: int = 256
) -> Callable[[Examples], float]:
    """A function of a split that gives the evidence lower bound in nats per example, the KL spread over `count`."""

    @tf.function(reduce_retracing=True, autograph=False)
    def summed(one: dict, index: tf.Tensor) -> tf.Tensor:
        with use_handler(DrawHandler(seed, index)):
            each = objective.loss(objective.terms(model.channels(one["images"]), one["targets"]))
        return tf.reduce_sum(each)

    @tf.function(autograph=False)
    def nats() -> tf.Tensor:
        with use_handler(TrainingHandler(seed, 0)) as handler:
            return divergence(model, handler)

    def bound(examples: Examples) -> float:
        loss = 0.0
        for one in data.evaluation_batches(examples, batch):
            loss += sum(float(summed(one, tf.constant(index))) for index in range(_ELBO_DRAWS)) / _ELBO_DRAWS
        return -loss / len(examples) - settings.kl_weight * float(nats()) / count

    return bound


class _Keeper:
    """What a fit keeps beside the variables: checkpoints, the best weights, the average of weights."""

    def __init__(
        self, model: Model, objective: Objective, optimizers: list[keras.optimizers.Optimizer], run: Run
    ) -> None:
        self.run = run
        self.weights = [*model.network.variables, *objective.variables]
        self.variables = [*self.weights, *(variable for one in optimizers for variable in one.variables)]
        self.best: list[np.ndarray] = []
        self.average: list[np.ndarray] = []

    def restored(self) -> State:
        """The newest checkpoint's state, its arrays in place; a new state if there is no checkpoint."""
        found = self.run.checkpoints.newest(self.run.identity) if self.run.checkpoints else None
        if found is None:
            return State(run=self.run.identity)
        state, arrays = found
        for number, variable in enumerate(self.variables):
            variable.assign(arrays[f"variable_{number:05d}"])
        self.best = _numbered(arrays, "best")
        self.average = _numbered(arrays, "average")
        return state

    def save(self, state: State) -> None:
        """A checkpoint, if they are kept."""
        if self.run.checkpoints is None or not self.run.writes:
            return
        arrays = {f"variable_{number:05d}": _array(variable) for number, variable in enumerate(self.variables)}
        arrays |= {f"best_{number:05d}": array for number, array in enumerate(self.best)}
        arrays |= {f"average_{number:05d}": array for number, array in enumerate(self.average)}
        self.run.checkpoints.save(state, arrays)

    def epoch(self, state: State, progress: EpochReport, settings: FitSettings) -> None:
        """Takes note of an epoch's weights, where the settings ask for that."""
        if settings.patience:
            if state.best is None or progress.elbo > state.best:
                state.best, state.waited = progress.elbo, 0
                self.best = [_array(variable) for variable in self.weights]
            else:
                state.waited += 1
        if settings.average and progress.epoch > settings.epochs * (1 - settings.average):
            state.averaged += 1
            now = [_array(variable) for variable in self.weights]
            before = self.average or [np.zeros_like(array) for array in now]
            # Whole numbers (seeds of layers) are not averaged.
            self.average = [
                old + (new - old) / state.averaged if new.dtype.kind == "f" else new
                for old, new in zip(before, now, strict=True)
            ]

    def finish(self, state: State, settings: FitSettings) -> bool:
        """Puts the chosen weights in place; whether they are an average."""
        chosen = self.best if settings.patience else self.average
        for variable, array in zip(self.weights, chosen, strict=False):
            variable.assign(array)
        return bool(chosen) and not settings.patience


def _patience_over(state: State, settings: FitSettings) -> bool:
    return bool(settings.patience) and state.waited >= settings.patience


def _refresh_statistics(model: Model, train: Examples, settings: FitSettings, run: Run) -> None:
    """Batch statistics of averaged weights, from one more pass over the training images."""
    if not any(isinstance(layer, keras.layers.BatchNormalization) for layer in flatten_layers(model.network)):
        return

    @tf.function(reduce_retracing=True, autograph=False)
    def seen(images: tf.Tensor, step: tf.Tensor) -> None:
        with use_handler(TrainingHandler(run.seed, step)):
            model.channels(images, training=True)

    steps = range(math.ceil(len(train) / settings.batch))
    made = data.batches(train, settings.batch, run.seed, run.augmentation, model.heads, model.input, steps)
    for step, one in zip(steps, made, strict=True):
        seen(one["images"], tf.constant(step))


def _not_finite(
    model: Model, objective: Objective, one: dict, run: Run, state: State, settings: FitSettings, found: Stepped
) -> str:
    where = culprit(model, objective, one, run.seed, state.step * settings.draws)
    what = f"loss is {found.loss}" if not math.isfinite(found.loss) else f"gradient is {found.norm}"
    kept = run.checkpoints.paths() if run.checkpoints else []
    last = f"; the checkpoint of step {int(kept[0].stem)} is kept" if kept else ""
    return (
        f"fit: the {what} at step {state.step + 1}{f' ({where})' if where else ''}: lower fit.learning_rate or raise "
        f"fit.warmup{last}"
    )


@contextmanager
def _signals() -> Iterator[list[tuple[int, object]]]:
    """A list that gets (signal, what handled it before) when the run is asked to end; empty outside the main thread."""
    asked: list[tuple[int, object]] = []
    before = {}

    def note(number: int, frame: FrameType | None) -> None:
        asked.append((number, before[number]))

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, note)
    except ValueError:
        pass
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _array(variable: keras.Variable) -> np.ndarray:
    return np.array(variable.numpy())


def _numbered(arrays: dict[str, np.ndarray], prefix: str) -> list[np.ndarray]:
    return [arrays[name] for name in sorted(arrays) if name.startswith(f"{prefix}_")]
