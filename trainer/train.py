"""From a config to a model directory, with a progress display."""

from __future__ import annotations

import importlib.metadata
import time
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from probrt.runtime.manifest import Calibration
from probrt.trainer import config as configs
from probrt.trainer import data as tables
from probrt.trainer import store
from probrt.trainer.calibrate import calibrated
from probrt.trainer.fit import Progress as Epoch
from probrt.trainer.fit import evaluator, fit
from probrt.trainer.heads import AnyHead
from probrt.trainer.kl import kl_lines, kl_report
from probrt.trainer.model import build

_KEPT_IMAGES = 512
_PACKAGES = ("probrt", "tensorflow", "keras", "tensorflow-probability", "numpy", "pillow")


def train(path: Path, out: Path, console: Console) -> None:
    """Fits the model of a config and writes its model directory."""
    config = configs.load(path)
    with console.status(f"reading {config.data.folder}"):
        data = tables.read(config, path.parent)
    counts = ", ".join(f"{len(examples)} {name}" for name, examples in data.splits.items())
    console.print(f"{config.name}: {counts}")
    keras.utils.set_random_seed(config.seed)
    training = data.splits["train"]
    heads = tables.standardised(config.heads, training)
    model = build(config.name, config.input, heads, config.backbone, config.weights, config.final.kernel)
    console.print(
        f"{model.network.count_params():,} parameters, {len(model.weights)} random weight tensors, "
        f"{config.fit.epochs} epochs"
    )
    start = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as display:
        task = display.add_task("fitting", total=None, state="")
        shown = ""

        def stepped(step: int, steps: int, loss: float, kl: float) -> None:
            display.update(task, completed=step, total=steps, state=f"loss {loss:.3f}  KL {kl:,.0f}  {shown}")

        validation = data.splits["validation"]
        for epoch in fit(model, training, validation, config.fit, config.seed, config.data.shift, stepped):
            shown = _shown(epoch, model.heads)
            line = f"epoch {epoch.epoch:3d}/{epoch.epochs}  loss {epoch.loss:8.3f}  KL {epoch.kl:9,.0f}  {shown}"
            console.print(line, soft_wrap=True)
    with console.status("calibrating"):
        model = calibrated(model, validation, config.seed)
    console.print("calibrated: " + ", ".join(_calibration(one) for one in model.calibration))
    report = kl_report(model.network, config.seed, draws=16)
    for line in kl_lines(report):
        console.print(line, soft_wrap=True)
    provenance: dict[str, Any] = {
        "config": msgspec.to_builtins(config),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "data_digest": data.digest,
        "seconds": round(time.monotonic() - start, 1),
        "kl_weight": config.fit.kl_weight,
        "kl": [msgspec.to_builtins(one) for one in report],
        "validation": evaluator(model)(validation),
    }
    store.save(model, out, _kept(training.images), provenance)
    console.print(f"{out}: trained in {provenance['seconds']:.0f} s; next: probrt export {out}", soft_wrap=True)


def _shown(epoch: Epoch, heads: tuple[AnyHead, ...]) -> str:
    return "  ".join(f"{head.name} {head.metric_name} {epoch.metrics[head.name]:.4f}" for head in heads)


def _calibration(one: Calibration) -> str:
    return f"{one.head} temperature {one.temperature}" if one.scale == 1 else f"{one.head} scale {one.scale}"


def _kept(images: np.ndarray) -> np.ndarray:
    """Training images spread over the whole split."""
    return images[np.linspace(0, len(images) - 1, min(_KEPT_IMAGES, len(images))).astype(int)]
