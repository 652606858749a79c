"""The loop over steps and epochs.

What happens at a step depends only on the variables, the state of the optimizers and the step's number, because the
number determines the order of the data, the augmentation and the draws. So a fit that continues from a checkpoint
gives the same weights, bit for bit, as a fit that was never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from probrt.runtime.errors import Fault
from probrt.trainer import data
from probrt.trainer.config.settings import Augmentation, FitSettings
from probrt.trainer.data import Examples
from probrt.trainer.fit.checkpoints import Checkpoints, FitState
from probrt.trainer.fit.mixup import check_mixup, mix_batches
from probrt.trainer.fit.nonfinite import explain_divergence, explain_nonfinite, locate_nonfinite
from probrt.trainer.fit.objective import Objective, resolve_epochs, resolve_kl_weight
from probrt.trainer.fit.optimizers import make_optimizers, spread_at
from probrt.trainer.fit.signals import defer_signals
from probrt.trainer.fit.step import StepResult, make_train_step
from probrt.trainer.fit.validation import make_elbo, make_metrics
from probrt.trainer.fit.weight_selection import WeightSelection, assign_values, copy_values
from probrt.trainer.keras_internals import flatten_layers
from probrt.trainer.model import Model
from probrt.trainer.variational.estimators import TrainingHandler
from probrt.trainer.variational.handlers import use_handler

# A loss of so many times the first step's is no noise of a batch.
_DIVERGED = 100


@dataclass(frozen=True)
class EpochReport:
    """Results of one epoch.

    loss, kl: means over its steps. elbo: in nats per example, on the validation split. metrics: by head, on the
    validation split.
    """

    epoch: int
    epochs: int
    step: int
    loss: float
    kl: float
    elbo: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class FitRun:
    """How to run a fit, apart from the model, the data and the settings.

    origin: config and data, as plain values; a fit continues only from a checkpoint of the same. checkpoints: where to
    write them, if anywhere. resume: continue from the newest checkpoint. writes: whether this process writes
    checkpoints. on_step: called after each step with its number, the number of all steps and the result.
    """

    seed: int
    augmentation: Augmentation = field(default_factory=Augmentation)
    origin: dict[str, Any] = field(default_factory=dict)
    checkpoints: Checkpoints | None = None
    resume: bool = False
    writes: bool = True
    on_step: Callable[[int, int, StepResult], None] = lambda step, steps, result: None


def fit_model(
    model: Model, train: Examples, validation: Examples, *, settings: FitSettings, run: FitRun
) -> Iterator[EpochReport]:
    """Fits the model's variables in place and yields a report after each epoch.

    On SIGTERM or SIGINT it finishes the step and writes a checkpoint; then the earlier signal handler acts.
    Raises Fault, with the step, the head and the layer, when the loss or the gradient is not finite, and after an epoch
    at whose end the loss is a hundred times that of the first step.
    """
    check_mixup(settings, model.heads)
    settings = resolve_kl_weight(resolve_epochs(settings, len(train)), model, len(train))
    steps_per_epoch = math.ceil(len(train) / settings.batch)
    steps = steps_per_epoch * settings.epoch_count
    objective = Objective(model, settings.loss_weights, settings.l1, settings.l2)
    optimizers = make_optimizers(model, objective, settings, steps, len(train))
    train_step = make_train_step(
        model, objective, optimizers, settings, train_count=len(train), steps=steps, seed=run.seed
    )
    compute_metrics = make_metrics(model)
    compute_elbo = make_elbo(model, objective, settings, train_count=len(train), seed=run.seed)
    selection = WeightSelection([*model.network.variables, *objective.variables], settings)
    variables = [*selection.variables, *(variable for group in optimizers for variable in group.optimizer.variables)]
    state = (_restore(run, variables, selection) if run.resume else None) or FitState(origin=run.origin)
    start = time.monotonic() - state.seconds
    with defer_signals() as pending:
        for batch in _batches(model, train, settings, run, range(state.step, steps)):
            if selection.should_stop(state):
                break
            result = train_step(batch, state.step)
            if not result.finite:
                spread = spread_at(tf.constant(state.step), settings, steps)
                handler = TrainingHandler(run.seed, state.step * settings.draws, spread=spread)
                location = locate_nonfinite(model, objective, batch, handler)
                newest = run.checkpoints.newest_step() if run.checkpoints else None
                raise Fault(explain_nonfinite(state.step + 1, result, location, newest))
            state.step += 1
            if state.start is None:
                state.start = abs(result.loss) + settings.kl_factor * result.kl / len(train)
            state.sums = (state.sums[0] + result.loss, state.sums[1] + result.kl)
            run.on_step(state.step, steps, result)
            epoch, steps_into_epoch = divmod(state.step, steps_per_epoch)
            report = None
            if not steps_into_epoch:
                if result.loss > _DIVERGED * (1 + state.start):
                    raise Fault(explain_divergence(state.step, result, state.start))
                loss, kl = (total / steps_per_epoch for total in state.sums)
                elbo, metrics = compute_elbo(validation), compute_metrics(validation)
                report = EpochReport(epoch, settings.epoch_count, state.step, loss, kl, elbo, metrics)
                selection.update(state, epoch, elbo)
                state.sums = (0.0, 0.0)
            due = state.step % settings.checkpoint == 0 if settings.checkpoint else report is not None
            if due or pending:
                state.seconds = time.monotonic() - start
                _save(run, state, variables, selection)
            if pending:
                if run.checkpoints is not None and run.writes:
                    run.checkpoints.report(f"stopped at step {state.step} of {steps}; go on with --resume")
                pending[0].deliver()
            if report:
                yield report
    averaged = selection.assign()
    if averaged:
        _refresh_batch_statistics(model, train, settings, run)


def _restore(run: FitRun, variables: Sequence[keras.Variable], selection: WeightSelection) -> FitState | None:
    """Assigns the arrays of the newest checkpoint and returns its state; None if there is no checkpoint."""
    checkpoint = run.checkpoints.load_newest(run.origin) if run.checkpoints else None
    if checkpoint is None:
        return None
    state, arrays = checkpoint
    assign_values(variables, arrays["variable"])
    selection.best, selection.average = arrays.get("best", []), arrays.get("average", [])
    return state


def _save(run: FitRun, state: FitState, variables: Sequence[keras.Variable], selection: WeightSelection) -> None:
    """Writes a checkpoint, if this run and this process write them."""
    if run.checkpoints is not None and run.writes:
        arrays = {"variable": copy_values(variables), "best": selection.best, "average": selection.average}
        run.checkpoints.save(state, arrays)


def _batches(model: Model, train: Examples, settings: FitSettings, run: FitRun, steps: range) -> tf.data.Dataset:
    """Returns the batches of the given steps."""
    batches = data.training_batches(
        train,
        batch=settings.batch,
        seed=run.seed,
        steps=steps,
        augmentation=run.augmentation,
        heads=model.heads,
        input=model.input,
    )
    return mix_batches(batches, settings.mixup, seed=run.seed, steps=steps) if settings.mixup else batches


def _refresh_batch_statistics(model: Model, train: Examples, settings: FitSettings, run: FitRun) -> None:
    """Computes the batch statistics of averaged weights, with one more pass over the training images."""
    if not any(isinstance(layer, keras.layers.BatchNormalization) for layer in flatten_layers(model.network)):
        return

    @tf.function(reduce_retracing=True, autograph=False)
    def update_statistics(images: tf.Tensor, step: tf.Tensor) -> None:
        with use_handler(TrainingHandler(run.seed, step)):
            model.channels(images, training=True)

    steps = range(math.ceil(len(train) / settings.batch))
    for step, batch in zip(steps, _batches(model, train, settings, run, steps), strict=True):
        update_statistics(batch["images"], tf.constant(step))
