"""From a config to a model directory, with a progress display."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from probrt.runtime.bundle.manifest import Calibration
from probrt.runtime.errors import ConfigError, one_line
from probrt.trainer import data as tables
from probrt.trainer import store
from probrt.trainer.build import build_model
from probrt.trainer.calibration.calibrate import calibrated
from probrt.trainer.card import card
from probrt.trainer.config import config as configs
from probrt.trainer.config.config import Config
from probrt.trainer.data import Examples
from probrt.trainer.data.examples import Dataset
from probrt.trainer.fit.checkpoints import Checkpoints
from probrt.trainer.fit.distribute import chosen_strategy, is_chief, synchronise
from probrt.trainer.fit.logs import Logs
from probrt.trainer.fit.loop import EpochReport, Run, evaluator, fit
from probrt.trainer.fit.step import Stepped
from probrt.trainer.heads import AnyHead
from probrt.trainer.model import Model
from probrt.trainer.variational.kl_report import kl_lines, kl_report

_KEPT_IMAGES = 512
_PACKAGES = ("probrt", "tensorflow", "keras", "tensorflow-probability", "numpy", "pillow")


def train(path: Path, out: Path, console: Console, resume: bool = False) -> None:
    """Fits the model of a config and writes its model directory; `resume` goes on from its newest checkpoint."""
    config = configs.load(path)
    strategy = chosen_strategy()
    chief = is_chief(strategy)
    if not chief:
        console = Console(file=io.StringIO())
    checkpoints = Checkpoints(out / "checkpoints", lambda line: console.print(line, soft_wrap=True))
    if resume and (out / "model.json").exists() and not checkpoints.paths():
        console.print(f"{out}: is finished already; next: probrt export {out}", soft_wrap=True)
        return
    data = _read(config, path, console)
    identity = hashlib.sha256(msgspec.json.encode(config) + data.digest.encode()).hexdigest()
    if chief and not resume:
        checkpoints.clear()
    training, validation = data.splits["train"], data.splits["validation"]
    heads = tables.standardised(config.heads, training)
    placed = msgspec.structs.replace(config, backbone=config.backbone.located(path.parent))
    with strategy.scope():
        try:
            model = _built(placed, heads, config.fit.precision)
        except ValueError as error:  # a layer, of ours or of Keras, cannot be as the config has it
            raise ConfigError(f"{path}: the model cannot be built: {one_line(error)}") from error
        synchronise(model.network, strategy)
        shared_by = f", {strategy.num_replicas_in_sync} replicas" if strategy.num_replicas_in_sync > 1 else ""
        console.print(
            f"{model.network.count_params():,} parameters, {len(model.weights)} random weight tensors, "
            f"{config.fit.epochs} epochs{shared_by}"
        )
        start = time.monotonic()
        logs = Logs(out / "logs", model, validation) if chief else None
        with _display(console, model, logs) as (stepped, shown):
            run = Run(config.seed, config.data, identity, checkpoints, resume, chief, stepped)
            for epoch in fit(model, training, validation, config.fit, run):
                shown(epoch)
    if not chief:
        return
    model = _plain(placed, heads, model)
    with console.status("calibrating"):
        model = calibrated(model, validation, config.seed)
    console.print("calibrated: " + ", ".join(_calibration(one) for one in model.calibration))
    report = kl_report(model.network, config.seed, draws=16)
    for line in kl_lines(report):
        console.print(line, soft_wrap=True)
    metrics = evaluator(model)
    provenance: dict[str, Any] = {
        "config": msgspec.to_builtins(config),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "data": relative(path.parent / config.data.folder, out),
        "data_digest": data.digest,
        "seconds": round(time.monotonic() - start, 1),
        "kl_weight": config.fit.kl_weight,
        "kl": [msgspec.to_builtins(one) for one in report],
        "metrics": {name: metrics(examples) for name, examples in data.splits.items() if name != "train"},
    }
    kept = _kept(training)
    targets = {name: values[kept] for name, values in training.targets.items()}
    store.save(model, out, training.images[kept], provenance, card(model, config, data, provenance), targets)
    checkpoints.clear()
    console.print(f"{out}: trained in {provenance['seconds']:.0f} s; next: probrt export {out}", soft_wrap=True)


def relative(root: Path, out: Path) -> str:
    """Where the data are, as seen from the model directory."""
    return os.path.relpath(root.resolve(), out.resolve())


def _read(config: Config, path: Path, console: Console) -> Dataset:
    """The config's data, described; of many faults the whole list is printed before it is refused."""
    try:
        with console.status(f"reading {config.data.folder}"):
            data = tables.read(config, path.parent)
    except tables.Faulty as error:
        if len(error.faults) > 20:
            console.print("\n".join(error.faults), soft_wrap=True, markup=False)
        raise
    counts = ", ".join(f"{len(examples)} {name}" for name, examples in data.splits.items())
    console.print(f"{config.name}: {counts}")
    for line in tables.summary(data, config.heads):
        console.print(line, soft_wrap=True, markup=False)
    return data


def _built(config: Config, heads: tuple[AnyHead, ...], precision: str) -> Model:
    """A new model whose activations have that precision; the same seed gives the same variables."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32" if precision == "float32" else f"mixed_{precision}")
    try:
        keras.utils.set_random_seed(config.seed)
        return build_model(config.name, config.input, heads, config.backbone, config.weights, config.final.kernel)
    finally:
        keras.config.set_dtype_policy(before)


def _plain(config: Config, heads: tuple[AnyHead, ...], fitted: Model) -> Model:
    """The fitted model outside of any strategy and in float32, as it is calibrated and saved."""
    model = _built(config, heads, "float32")
    model.network.set_weights(fitted.network.get_weights())
    return dataclasses.replace(fitted, network=model.network)


@contextmanager
def _display(
    console: Console, model: Model, logs: Logs | None
) -> Iterator[tuple[Callable[[int, int, Stepped], None], Callable[[EpochReport], None]]]:
    """A progress bar; two functions, called after each step and after each epoch."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as display:
        task = display.add_task("fitting", total=None, state="")
        latest = ""

        def stepped(step: int, steps: int, found: Stepped) -> None:
            state = f"loss {found.loss:.3f}  KL {found.kl:,.0f}  {latest}"
            display.update(task, completed=step, total=steps, state=state)
            if logs:
                logs.step(step, found)

        def shown(epoch: EpochReport) -> None:
            nonlocal latest
            latest = "  ".join(f"{head.name} {head.metric_name} {epoch.metrics[head.name]:.4f}" for head in model.heads)
            at = f"epoch {epoch.epoch:3d}/{epoch.epochs}"
            line = f"{at}  loss {epoch.loss:8.3f}  KL {epoch.kl:9,.0f}  ELBO {epoch.elbo:8.3f}  {latest}"
            console.print(line, soft_wrap=True)
            if logs:
                logs.epoch(epoch)

        try:
            yield stepped, shown
        finally:
            if logs:
                logs.close()


def _calibration(one: Calibration) -> str:
    return f"{one.head} temperature {one.temperature}" if one.scale == 1 else f"{one.head} scale {one.scale}"


def _kept(training: Examples) -> np.ndarray:
    """The rows of training examples spread over the whole split."""
    return np.linspace(0, len(training) - 1, min(_KEPT_IMAGES, len(training))).astype(int)
