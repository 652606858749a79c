"""`probrt adopt MODEL.keras`: from a finished deterministic Keras model to a model directory."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import keras
import msgspec
from rich.console import Console
from rich.table import Table

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import ConfigError, one_line
from probrt.runtime.functions import load_function
from probrt.trainer import data
from probrt.trainer.adopt.assemble import Assembly, choose_values, measure_scales
from probrt.trainer.adopt.attach import fit_heads
from probrt.trainer.adopt.compare import Scores, score_model
from probrt.trainer.adopt.functional import list_outputs, strip_activation, to_functional
from probrt.trainer.adopt.keras_card import KerasCard, describe_data, describe_input
from probrt.trainer.adopt.keras_file import read_keras_file
from probrt.trainer.adopt.laplace import make_laplace
from probrt.trainer.adopt.moped import fit_steps, spread_kernels
from probrt.trainer.adopt.swag import fit_swag
from probrt.trainer.calibration.calibrate import calibrate_model
from probrt.trainer.calibration.novelty import try_novelty
from probrt.trainer.card import describe_calibration, make_adopted_card
from probrt.trainer.config.settings import DataSettings
from probrt.trainer.data.examples import Dataset
from probrt.trainer.evaluate.source import ModelSource
from probrt.trainer.fit.step import StepResult
from probrt.trainer.heads import AnyHead
from probrt.trainer.model import Model
from probrt.trainer.save_trained import read_versions, save_trained

Method = Literal["moped", "laplace", "swag"]


@dataclass(frozen=True)
class Adoption:
    """How a model becomes Bayesian.

    method: "laplace" gives the final dense layer its posterior in closed form; "moped" spreads kernels around their
    weights and fits a few steps; "swag" takes the path of SGD around them. last: the number of last layers that moped
    and swag make random; all if None. delta, steps: of moped, the standard deviation as a share of each weight and
    the steps of its fit. epochs, rate: of swag's SGD.
    """

    method: Method = "laplace"
    last: int | None = None
    delta: float = 0.1
    steps: int = 80
    epochs: int = 5
    rate: float = 1e-2
    seed: int = 0


def load_source(source: str) -> tuple[keras.Model, str]:
    """Returns the Keras model of a `.keras` file, a Hub folder or a function `module:function`, and a name for it.

    Raises DataError for a file that cannot be adopted, ConfigError for a function that is not there or returns
    something else.
    """
    module, colon, function = source.partition(":")
    if source.endswith(".keras") or not (colon and module and function.isidentifier()):
        path = Path(source)
        stem = path.resolve().name if path.is_dir() else path.stem
        return read_keras_file(path), re.sub(r"[^A-Za-z0-9_.-]", "-", stem).lstrip("_.-") or "model"
    try:
        network = load_function(source, Path.cwd())()
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{source}: no such function ({one_line(error)}); name it as module:function") from None
    if not isinstance(network, keras.Model):
        raise ConfigError(f"{source}: returns a {type(network).__name__}, not a Keras 3 model")
    return network, function


def adopt_keras(
    source: keras.Model, card: KerasCard, folder: Path, out: Path, *, name: str, adoption: Adoption, console: Console
) -> Model:
    """Makes a finished Keras model Bayesian, calibrates it on labelled images, and writes a model directory.

    folder: of the images. name: of the model where the card has none. Raises ConfigError for a model and a card that do
    not fit each other, DataError for images that cannot be read.
    """
    start = time.monotonic()
    input = describe_input(card.input, source)
    flat = to_functional(source, input.shape)
    outputs = list_outputs(flat, card.heads)
    groups = [[head] for head in card.heads] if len(outputs) > 1 else [card.heads]
    outputs = [strip_activation(output, group) for output, group in zip(outputs, groups, strict=True)]
    heads = fit_heads(card.heads, outputs)
    settings = describe_data(card.data)
    dataset = _read_data(settings, input, heads, folder, adoption.seed, console)
    train, validation = dataset.splits["train"], dataset.splits["validation"]
    heads = data.standardise_heads(heads, train)
    groups = [[head] for head in heads] if len(outputs) > 1 else [[*heads]]
    with console.status("looking for the pixel values"):
        plain, way = choose_values(
            keras.Model(flat.input, outputs), groups, train, name=card.name or name, input=input, values=card.values
        )
        plain = measure_scales(plain, train, adoption.seed)
    console.print(f"pixel values: {way}", soft_wrap=True)
    held_out = dataset.splits.get("test", validation)
    before = score_model(plain.model(), held_out, adoption.seed)
    model = _make_bayesian(plain, adoption, dataset, console)
    with console.status("calibrating"):
        model = calibrate_model(model, validation, adoption.seed)
    calibrations = ", ".join(describe_calibration(record) for record in model.calibration)
    console.print(f"calibrated: {calibrations}", soft_wrap=True)
    with console.status("fitting novelty"):
        model, novelty = try_novelty(model, train, validation, adoption.seed)
    console.print(f"novelty: {novelty}", soft_wrap=True, markup=False)
    after = score_model(model, held_out, adoption.seed)
    _print_scores(console, before, after, "test" if "test" in dataset.splits else "validation")
    provenance = {
        "adopted": {"model": source.name, **dataclasses.asdict(adoption), "values": way},
        "source": {"data": msgspec.to_builtins(settings), "seed": adoption.seed},
        "versions": read_versions(),
        "data": os.path.relpath(folder.resolve(), out.resolve()),
        "data_digest": dataset.digest,
        "seconds": round(time.monotonic() - start, 1),
        "scores": {"before": before, "after": after},
        "novelty": novelty,
    }
    card_text = make_adopted_card(model, dataset, provenance, grouped=bool(settings.group))
    save_trained(model, out, train, provenance, card_text)
    for note in dataset.notes:
        console.print(f"note: {note}", soft_wrap=True, markup=False)
    command = f"probrt export {shlex.quote(str(out))}"
    seconds = f"{provenance['seconds']:.0f} s"
    console.print(f"{out}: adopted in {seconds}; next: {command}", soft_wrap=True, markup=False)
    return model


def _read_data(
    settings: DataSettings, input: Input, heads: Sequence[AnyHead], folder: Path, seed: int, console: Console
) -> Dataset:
    reader = ModelSource(settings, input, [*heads], seed)
    with console.status(f"reading {folder}"):
        dataset = data.read_dataset(reader, folder)
    counts = ", ".join(f"{len(examples)} {split}" for split, examples in dataset.splits.items())
    console.print(f"{folder}: {counts}", soft_wrap=True, markup=False)
    return dataset


def _make_bayesian(plain: Assembly, adoption: Adoption, dataset: Dataset, console: Console) -> Model:
    """Returns the model with random weights."""
    train, validation = dataset.splits["train"], dataset.splits["validation"]
    if adoption.method == "laplace":
        with console.status("fitting the last layer"):
            assembly, fits = make_laplace(plain, train, validation, adoption.seed)
        for fit in fits:
            console.print(
                f"{fit.layer}: {fit.weights:,} weights, {fit.form} covariance, prior precision {fit.precision:.3g}"
            )
        return assembly.model()
    network = spread_kernels(plain.network, last=adoption.last, delta=adoption.delta)
    outputs = tuple(network.outputs)
    model = dataclasses.replace(plain, images=network.inputs[0], outputs=outputs).model()
    if left_out := model.heads_left_out:
        raise ConfigError(
            f"--last {adoption.last}: no layer with random weights comes before {', '.join(left_out)}, while one does "
            "before other heads; take more layers, or all by leaving --last out"
        )
    if adoption.method == "swag":
        _run_swag(model, adoption, dataset, console)
        return model
    console.print(f"{len(model.weights)} random kernels, standard deviation {adoption.delta:g} of each weight")
    with console.status("fitting") as status:

        def on_step(step: int, steps: int, result: StepResult) -> None:
            status.update(f"fitting, step {step} of {steps}, loss {result.loss:.3f}")

        fit_steps(model, train, validation, steps=adoption.steps, seed=adoption.seed, on_step=on_step)
    return model


def _run_swag(model: Model, adoption: Adoption, dataset: Dataset, console: Console) -> None:
    train, validation = dataset.splits["train"], dataset.splits["validation"]
    with console.status("running SGD") as status:

        def on_step(step: int, steps: int, loss: float) -> None:
            status.update(f"running SGD, step {step} of {steps}, loss {loss:.3f}")

        fit = fit_swag(
            model, train, validation, epochs=adoption.epochs, rate=adoption.rate, seed=adoption.seed, on_step=on_step
        )
    console.print(f"{fit.kernels} random kernels, by {fit.steps} steps of SGD, their deviations times {fit.factor:.3g}")


def _print_scores(console: Console, before: Scores, after: Scores, split: str) -> None:
    table = Table(title=f"{split} split", title_justify="left", box=None)
    for column in ("head", "score", "before", "after"):
        table.add_column(column, justify="left" if column in ("head", "score") else "right")
    for head, scores in before.items():
        for name, value in scores.items():
            table.add_row(head, name, f"{value:.4f}", f"{after[head][name]:.4f}")
    console.print(table)
