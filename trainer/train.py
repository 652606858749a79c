"""`probrt train`: from a config to a model directory."""

from __future__ import annotations

import dataclasses
import io
import os
import shlex
import time
from pathlib import Path
from typing import Any

import keras
import msgspec
from rich.console import Console

from probrt.runtime.bundle.manifest import Calibration
from probrt.runtime.errors import ConfigError, one_line
from probrt.trainer import data
from probrt.trainer.build import build_model
from probrt.trainer.calibration.calibrate import calibrate_model
from probrt.trainer.calibration.novelty import try_novelty
from probrt.trainer.card import make_card
from probrt.trainer.config.config import Config, load_config
from probrt.trainer.data.examples import Dataset
from probrt.trainer.data.faults import LISTED
from probrt.trainer.fit.checkpoints import Checkpoints
from probrt.trainer.fit.display import TrainingDisplay, show_training
from probrt.trainer.fit.distribute import choose_strategy, is_chief, synchronise_batch_statistics
from probrt.trainer.fit.logs import TensorBoardLogs
from probrt.trainer.fit.loop import FitRun, fit_model
from probrt.trainer.fit.measure import measure_model
from probrt.trainer.fit.mixup import check_mixup
from probrt.trainer.fit.objective import resolve_epochs, resolve_kl_weight
from probrt.trainer.fit.step import StepResult
from probrt.trainer.heads import AnyHead
from probrt.trainer.model import Model
from probrt.trainer.save_trained import read_versions, save_trained
from probrt.trainer.variational.kl_report import format_kl_report


def train_model(path: Path, out: Path, console: Console, resume: bool = False) -> None:
    """Fits the model of a config and writes its model directory; `resume` continues from the newest checkpoint."""
    strategy = choose_strategy()
    chief = is_chief(strategy)
    if not chief:
        console = Console(file=io.StringIO())
    config = load_config(path, lambda line: console.print(f"note: {line}", soft_wrap=True, markup=False))
    check_mixup(config.fit, config.heads)
    checkpoints = Checkpoints(out / "checkpoints", lambda line: console.print(line, soft_wrap=True))
    if resume and (out / "model.json").exists() and not checkpoints.paths():
        console.print(f"{out}: is finished already; {_format_next(out)}", soft_wrap=True, markup=False)
        return
    dataset = _read_data(config, path, console)
    if chief and not resume:
        checkpoints.clear()
    train = dataset.splits["train"]
    config = msgspec.structs.replace(config, fit=resolve_epochs(config.fit, len(train)))
    heads = data.standardise_heads(config.heads, train)
    # The paths in a config are relative to its folder.
    located = msgspec.structs.replace(config, backbone=config.backbone.resolve_paths(path.parent))
    with strategy.scope():
        try:
            model = _build(located, heads, config.fit.precision)
        except ValueError as error:  # a layer, ours or Keras's, does not accept the config's settings
            raise ConfigError(f"{path}: the model cannot be built: {one_line(error)}") from error
        synchronise_batch_statistics(model.network, strategy)
        replicas = strategy.num_replicas_in_sync
        console.print(
            f"{model.network.count_params():,} parameters, {len(model.weights)} random weight tensors, "
            f"{config.fit.epoch_count} epochs{f', {replicas} replicas' if replicas > 1 else ''}"
        )
    start = time.monotonic()
    run = FitRun(
        seed=config.seed,
        augmentation=config.data,
        origin=_describe_origin(config, dataset),
        checkpoints=checkpoints,
        resume=resume,
        writes=chief,
    )
    with show_training(console, model, dataset.splits, config.fit.epoch_count) as display:
        with strategy.scope():
            _fit(model, dataset, config, run, display, out / "logs")
        if not chief:
            return
        model = _rebuild(located, heads, model)
        display.on_stage("calibrating", 0.0)
        model = calibrate_model(model, dataset.splits["validation"], config.seed)
        names = ", ".join(_describe_calibration(calibration) for calibration in model.calibration)
        console.print(f"calibrated: {names}", soft_wrap=True)
        display.on_stage("fitting the novelty", 0.6)
        model, novelty = try_novelty(model, train, dataset.splits["validation"], config.seed)
        console.print(f"novelty: {novelty}", soft_wrap=True, markup=False)
        measured = measure_model(model, dataset.splits, config.seed, display.on_stage)
        for line in format_kl_report(measured.weights):
            console.print(line, soft_wrap=True)
    provenance = {
        "config": msgspec.to_builtins(config),
        "versions": read_versions(),
        "data": relative_to(out, path.parent / config.data.folder),
        "data_digest": dataset.digest,
        "seconds": round(time.monotonic() - start, 1),
        "kl_weight": resolve_kl_weight(config.fit, model, len(train)).kl_factor,
        "kl": [msgspec.to_builtins(report) for report in measured.weights],
        "metrics": measured.metrics,
        "novelty": novelty,
    }
    save_trained(model, out, train, provenance, make_card(model, config, dataset, provenance))
    checkpoints.clear()
    for note in [*dataset.notes, *measured.unlearned]:
        console.print(f"note: {note}", soft_wrap=True, markup=False)
    seconds = f"{provenance['seconds']:.0f} s"
    console.print(f"{out}: trained in {seconds}; {_format_next(out)}", soft_wrap=True, markup=False)


def _format_next(out: Path) -> str:
    """Returns the next command to paste."""
    return f"next: probrt export {shlex.quote(str(out))}"


def _describe_origin(config: Config, dataset: Dataset) -> dict[str, Any]:
    """Returns the config and the data as plain values, without what a continued fit may change."""
    settings = msgspec.to_builtins(config)
    for name in ("epochs", "checkpoint"):
        del settings["fit"][name]
    # Through JSON, as the checkpoint holds it: tuples become lists.
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode({"config": settings, "data": dataset.digest}))
    return plain


def relative_to(out: Path, folder: Path) -> str:
    """Returns the path of a folder as seen from the model directory `out`."""
    return os.path.relpath(folder.resolve(), out.resolve())


def _read_data(config: Config, path: Path, console: Console) -> Dataset:
    """Reads the config's data and prints a summary. Raises FaultyData, after printing what its message leaves out."""
    try:
        with console.status(f"reading {config.data.folder}"):
            dataset = data.read_dataset(config, path.parent)
    except data.FaultyData as error:
        # The error lists the first ones.
        for line in error.lines[LISTED:]:
            console.print(line, soft_wrap=True, markup=False)
        raise
    counts = ", ".join(f"{len(examples)} {name}" for name, examples in dataset.splits.items())
    console.print(f"{config.name}: {counts}")
    for line in data.summarise(dataset, config.heads):
        console.print(line, soft_wrap=True, markup=False)
    return dataset


def _build(config: Config, heads: tuple[AnyHead, ...], precision: str) -> Model:
    """Builds a model with activations of the given precision; the same seed gives the same variables."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32" if precision == "float32" else f"mixed_{precision}")
    try:
        keras.utils.set_random_seed(config.seed)
        return build_model(
            config.name,
            config.input,
            heads,
            backbone=config.backbone,
            weights=config.weights,
            final_kernel=config.final.kernel,
        )
    finally:
        keras.config.set_dtype_policy(policy)


def _rebuild(config: Config, heads: tuple[AnyHead, ...], fitted: Model) -> Model:
    """Returns the fitted model in float32 and outside any strategy, as calibration and the model directory need it."""
    model = _build(config, heads, "float32")
    model.network.set_weights(fitted.network.get_weights())
    return dataclasses.replace(fitted, network=model.network)


def _fit(model: Model, dataset: Dataset, config: Config, run: FitRun, display: TrainingDisplay, folder: Path) -> None:
    """Fits the model; the process that writes files also writes TensorBoard logs to `folder`."""
    train, validation = dataset.splits["train"], dataset.splits["validation"]
    logs = TensorBoardLogs(folder, model, validation) if run.writes else None

    def on_step(step: int, steps: int, result: StepResult) -> None:
        display.on_step(step, steps, result)
        if logs:
            logs.log_step(step, result)

    run = dataclasses.replace(run, on_step=on_step)
    try:
        for report in fit_model(model, train, validation, settings=config.fit, run=run):
            display.on_epoch(report)
            if logs:
                logs.log_epoch(report)
    finally:
        if logs:
            logs.close()


def _describe_calibration(calibration: Calibration) -> str:
    if calibration.scale == 1:
        return f"{calibration.head} temperature {calibration.temperature}"
    return f"{calibration.head} scale {calibration.scale}"
