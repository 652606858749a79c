"""The commands `train`, `adopt`, `evaluate`, and `calibrate` of a model.

Light to import: TensorFlow loads inside the functions.
"""

import contextlib
import logging
import os
import shlex
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from probrt.runtime.errors import DataError, MissingError, StorageError, UsageError


class AdoptionMethod(StrEnum):
    """How a finished model becomes Bayesian."""

    laplace = "laplace"
    moped = "moped"
    swag = "swag"


_MINUTES = "Minutes of training: a few trial steps on this machine choose the epochs."


def init(
    folder: Annotated[Path, typer.Argument(help="A folder of images: a table, class folders, masks, COCO or YOLO.")],
    out: Annotated[Path, typer.Option(help="The config to write.")] = Path("config.toml"),
    minutes: Annotated[float | None, typer.Option(min=0.1, help=_MINUTES)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing config.")] = False,
) -> int:
    """Look at a folder of images and write a commented config that trains as it is."""
    _refuse_existing(out, overwrite, "choose another name, or replace it with --overwrite")
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    _check_writable(out.parent)
    _propose(folder, out, minutes)
    typer.echo(f"{out}: written; next: probrt train {shlex.quote(str(out))}")
    return 0


def train(
    config: Annotated[Path, typer.Argument(help="A training config (TOML), or a folder of images as for init.")],
    out: Annotated[Path, typer.Option(help="The model directory to write.")] = Path("model"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing model directory.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in --out.")] = False,
    print_config: Annotated[
        bool,
        typer.Option(
            "--print-config",
            help="Print the config, which may be half written, with every key and its meaning, and stop.",
        ),
    ] = False,
    minutes: Annotated[float | None, typer.Option(min=0.1, help=_MINUTES + " For a folder only.")] = None,
) -> int:
    """Fit a probabilistic conv net to labelled images."""
    if print_config:
        return _print_config(config)
    if overwrite and resume:
        raise UsageError("--overwrite starts again and --resume goes on: give only one of them")
    if not resume:
        _refuse_existing(out, overwrite, "choose another name, replace it with --overwrite, or go on with --resume")
    elif not (out / "model.json").exists() and not any(out.glob("checkpoints/*.npz")):
        raise UsageError(f"--resume: --out {out} holds no checkpoint; check the name, or leave out --resume")
    if minutes is not None and not config.is_dir():
        raise UsageError("--minutes goes with a folder; a config states its epochs")
    _check_writable(out)
    if config.is_dir():
        folder, config = config, out.with_name(f"{out.name}.toml")
        if not resume:
            _refuse_existing(
                config, overwrite, f"train with it (probrt train {config}), or replace it with --overwrite"
            )
            _propose(folder, config, minutes)
    _prepare_tensorflow()
    from rich.console import Console

    from probrt.runtime.hush import hush

    console = Console(highlight=False)
    with console.status("loading TensorFlow"), hush():
        from probrt.trainer.train import train_model
    train_model(config, out, console, resume)
    return 0


def adopt(
    model: Annotated[
        str, typer.Argument(help="A .keras file, a Hub folder, or module:function that returns a Keras model.")
    ],
    weights: Annotated[Path | None, typer.Argument(help="Of a tfp.layers model: its save_weights file.")] = None,
    card: Annotated[
        Path | None, typer.Argument(help="Of a tfp.layers model: a TOML file with name, [input] and [[heads]].")
    ] = None,
    heads: Annotated[Path | None, typer.Option(help="A TOML file with the [[heads]] of the Keras model.")] = None,
    data: Annotated[Path | None, typer.Option(help="A folder of labelled images, read as for init.")] = None,
    method: Annotated[
        AdoptionMethod, typer.Option(help="How its weights become random; laplace needs a final Dense layer.")
    ] = AdoptionMethod.laplace,
    last: Annotated[int | None, typer.Option(min=1, help="moped, swag: only the last layers; default: all.")] = None,
    delta: Annotated[float, typer.Option(min=1e-4, help="moped: standard deviation, of each weight.")] = 0.1,
    steps: Annotated[int, typer.Option(min=0, help="moped: steps of fitting.")] = 80,
    epochs: Annotated[int, typer.Option(min=1, help="swag: epochs of SGD.")] = 5,
    rate: Annotated[float, typer.Option(min=1e-8, help="swag: learning rate of SGD.")] = 1e-2,
    images: Annotated[
        Path | None, typer.Option(help="Of a tfp.layers model: raw inputs for checks at export, as a .npy array.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The model directory to write.")] = Path("model"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing model directory.")] = False,
) -> int:
    """Turn a finished Keras model, or one of TFP's own layers, into a model directory."""
    legacy, finished = (weights, card, images), (heads, data)
    if None in (legacy if any(legacy) else finished) or (any(legacy) and any(finished)):
        raise UsageError(
            "a Keras model takes MODEL.keras --heads heads.toml --data FOLDER; a model of tfp.layers takes "
            "module:function weights.h5 card.toml --images images.npy"
        )
    _refuse_existing(out, overwrite, "choose another name, or replace it with --overwrite")
    if data is not None and not data.is_dir():
        raise UsageError(f"--data {data}: no such folder of labelled images")
    _check_writable(out)
    _prepare_tensorflow()
    if heads is not None and data is not None:
        settings = {
            "method": method.value,
            "last": last,
            "delta": delta,
            "steps": steps,
            "epochs": epochs,
            "rate": rate,
        }
        _adopt_finished(model, heads, data, out, settings)
    elif weights is not None and card is not None and images is not None:
        _adopt_legacy(model, weights, card, images, out)
    return 0


def _adopt_finished(source: str, heads: Path, data: Path, out: Path, settings: dict[str, Any]) -> None:
    from rich.console import Console

    from probrt.runtime.hush import hush

    console = Console(highlight=False)
    with console.status("loading TensorFlow"), hush():
        from probrt.trainer.adopt.keras_card import load_keras_card
        from probrt.trainer.adopt.keras_command import Adoption, adopt_keras, load_source
    card = load_keras_card(heads)
    with console.status(f"reading {source}"):
        network, name = load_source(source)
    adopt_keras(network, card, data, out, name=name, adoption=Adoption(**settings), console=console)


def _adopt_legacy(builder: str, weights: Path, card: Path, images: Path, out: Path) -> None:
    from probrt.runtime.hush import hush

    with hush():
        import numpy as np

        from probrt.trainer.adopt import adopt as adopt_model
        from probrt.trainer.adopt import load_card
    adoption = load_card(card)
    try:
        inputs = np.load(images, allow_pickle=False).astype(np.float32)
    except (OSError, ValueError) as error:
        raise DataError(f"{images}: not a .npy array of numbers ({error})") from None
    adopt_model(builder, weights, out, name=adoption.name, input=adoption.input, heads=adoption.heads, images=inputs)
    typer.echo(f"{out}: adopted {builder}; next: probrt export {shlex.quote(str(out))}")


def evaluate(
    model: Annotated[Path, typer.Argument(help="A trained model's directory.")],
    data: Annotated[
        Path | None, typer.Option(help="A folder with a table; default: the model's own test split.")
    ] = None,
    ood: Annotated[
        list[str] | None, typer.Option(help="A folder of images of another kind, or NAME=FOLDER; may be repeated.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, max=1024, help="Draws per answer.")] = 32,
    resamples: Annotated[int, typer.Option(min=1, help="Bootstrap resamples per interval.")] = 500,
    out: Annotated[
        Path | None, typer.Option(help="Report to write; default: evaluation.json and .html in MODEL.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing report.")] = False,
    temperature: Annotated[
        bool, typer.Option(help="Apply the temperatures, scales and thresholds that calibration fitted.")
    ] = True,
) -> int:
    """Score a trained model on held-out examples: calibration, risk, intervals, images of another kind."""
    target = (out or model / "evaluation.json").with_suffix(".json")
    existing = [path for path in (target, target.with_suffix(".html")) if path.exists()]
    if existing and not overwrite:
        raise UsageError(f"{existing[0]} exists: choose another name with --out, or replace it with --overwrite")
    strangers = _parse_strangers(ood or [])
    for folder in (data, *strangers.values()):
        if folder is not None and not folder.is_dir():
            raise UsageError(f"{folder}: no such folder")
    _check_writable(target.parent)
    _prepare_tensorflow()
    from rich.console import Console

    from probrt.runtime.hush import hush
    from probrt.runtime.time_left import show_progress

    console = Console(highlight=False)
    with console.status("loading TensorFlow"), hush():
        import msgspec

        from probrt.trainer.evaluate.evaluate import evaluate_model
        from probrt.trainer.evaluate.page import render_page
        from probrt.trainer.evaluate.report import print_report
    with show_progress(console, "evaluate") as show:
        report, examples, loaded = evaluate_model(
            model, other=data, ood=strangers, draws=samples, resamples=resamples, calibrated=temperature, on_step=show
        )
    print_report(report, console)
    target.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    target.with_suffix(".html").write_text(render_page(report, examples, loaded), encoding="utf-8")
    console.print(f"{target} and {target.with_suffix('.html').name}", soft_wrap=True)
    return 0


def calibrate_folder(model: Path, data: Path, samples: int, unlabelled: bool) -> int:
    """Renews the calibration and the novelty of a model directory on a data folder; prints both.

    unlabelled: the folder holds images alone; only the novelty is renewed.
    """
    if not data.is_dir():
        raise UsageError(f"{data}: no such folder of {'' if unlabelled else 'labelled '}images")
    _prepare_tensorflow()
    from rich.console import Console

    from probrt.runtime.hush import hush

    console = Console(highlight=False)
    with console.status("loading TensorFlow"), hush():
        from probrt.trainer.card import describe_calibration
        from probrt.trainer.recalibrate import recalibrate_folder, renew_folder_novelty
    with console.status("calibrating"):
        renewed = renew_folder_novelty(model, data) if unlabelled else recalibrate_folder(model, data, samples)
    if not unlabelled:
        for title, records in (("before", renewed.before.calibration), ("after", renewed.after.calibration)):
            for record in records:
                console.print(f"{title:8}{describe_calibration(record)}", soft_wrap=True)
    console.print(f"novelty {renewed.novelty}", soft_wrap=True, markup=False)
    command = f"probrt export {shlex.quote(str(model))}"
    console.print(f"{model}: calibrated on {renewed.images} images; next: {command}", soft_wrap=True, markup=False)
    return 0


def _propose(folder: Path, out: Path, minutes: float | None) -> None:
    _prepare_tensorflow()
    from rich.console import Console

    from probrt.runtime.hush import hush

    console = Console(highlight=False)
    with console.status("loading TensorFlow"), hush():
        from probrt.trainer.propose.command import propose_config
    propose_config(folder, out, minutes, console)


def _parse_strangers(values: list[str]) -> dict[str, Path]:
    """Returns the folders of `--ood` by name, which is the folder's own unless it is given as NAME=FOLDER."""
    folders: dict[str, Path] = {}
    for value in values:
        name, equals, folder = value.partition("=")
        path = Path(folder) if equals and not Path(value).is_dir() else Path(value)
        name = name if equals and not Path(value).is_dir() else Path(value).resolve().name
        if not name or name in folders:
            raise UsageError(f"--ood {value}: needs a name of its own, such as letters={path}")
        folders[name] = path
    return folders


def _refuse_existing(out: Path, overwrite: bool, advice: str) -> None:
    """Raises UsageError with the advice if `out` exists and must not be replaced."""
    if out.exists() and not overwrite:
        raise UsageError(f"--out {out} exists: {advice}")


def _check_writable(folder: Path) -> None:
    """Raises StorageError if no file can be written to the folder, which may not exist yet; leaves nothing behind."""
    absent = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"probrt")
    except OSError as error:
        raise StorageError(f"--out {folder}: cannot be written ({error.strerror or error})") from None
    finally:
        for path in absent:
            with contextlib.suppress(OSError):
                path.rmdir()


def _prepare_tensorflow() -> None:
    """Sets TensorFlow's log level before it loads; raises MissingError if Keras is set to another backend."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Its Python side warns of what a user cannot change, such as graphs that are traced again.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise MissingError(f"KERAS_BACKEND is {backend!r}, but probrt trains with tensorflow; unset it")


def _print_config(path: Path) -> int:
    _prepare_tensorflow()
    from probrt.runtime.hush import hush

    with hush():
        from probrt.trainer.config.config import complete_config
    typer.echo(complete_config(path), nl=False)
    return 0
