"""`probrt train`; light to import."""

import os
from pathlib import Path
from typing import Annotated

import typer

from probrt.runtime.errors import DataError, MissingError, UsageError


def train(
    config: Annotated[Path, typer.Argument(help="A training config (TOML).")],
    out: Annotated[Path, typer.Option(help="The model directory to write.")] = Path("model"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing model directory.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in --out.")] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the config with every default filled in, and stop.")
    ] = False,
) -> int:
    """Fit a probabilistic conv net to labelled images."""
    if print_config:
        return _print_config(config)
    if overwrite and resume:
        raise UsageError("--overwrite begins anew and --resume goes on: give one of them")
    if out.exists() and not (overwrite or resume):
        raise UsageError(
            f"--out {out} exists: choose another name, replace it with --overwrite, or go on with --resume"
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        raise MissingError(f"KERAS_BACKEND is {os.environ['KERAS_BACKEND']!r}: probrt trains with tensorflow; unset it")
    from rich.console import Console

    from probrt.runtime.hush import hush

    console = Console(highlight=False)
    with console.status("loading TensorFlow"), hush():
        from probrt.trainer.train import train as train_model
    train_model(config, out, console, resume)
    return 0


def _print_config(path: Path) -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from probrt.runtime.hush import hush

    with hush():
        from probrt.trainer.config import config
    typer.echo(config.filled(config.load(path)), nl=False)
    return 0


def adopt(
    builder: Annotated[str, typer.Argument(help="module:function that builds the tf_keras model of tfp.layers.")],
    weights: Annotated[Path, typer.Argument(help="Its save_weights file.")],
    card: Annotated[Path, typer.Argument(help="A TOML file with name, [input] and [[heads]].")],
    images: Annotated[Path, typer.Option(help="Some raw inputs, a .npy array, for checks at export.")],
    out: Annotated[Path, typer.Option(help="The model directory to write.")] = Path("model"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing model directory.")] = False,
) -> int:
    """Turn a legacy model of TFP's own layers into a model directory."""
    if out.exists() and not overwrite:
        raise UsageError(f"--out {out} exists: choose another name, or replace it with --overwrite")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from probrt.runtime.hush import hush

    with hush():
        import numpy as np

        from probrt.trainer import adopt as legacy
    described = legacy.card(card)
    try:
        kept = np.load(images, allow_pickle=False).astype(np.float32)
    except (OSError, ValueError) as error:
        raise DataError(f"{images}: not a .npy array of numbers ({error})") from None
    legacy.adopt(builder, weights, out, described.name, described.input, described.heads, kept)
    typer.echo(f"{out}: adopted {builder}; next: probrt export {out}")
    return 0


def evaluate(
    model: Annotated[Path, typer.Argument(help="A trained model's directory.")],
    data: Annotated[
        Path | None, typer.Option(help="A folder with a table; default: the model's own test split.")
    ] = None,
    ood: Annotated[Path | None, typer.Option(help="A folder of images of another kind.")] = None,
    samples: Annotated[int, typer.Option(min=1, max=1024, help="Draws per answer.")] = 32,
    resamples: Annotated[int, typer.Option(min=1, help="Bootstrap resamples per interval.")] = 500,
    out: Annotated[
        Path | None, typer.Option(help="Report to write; default: evaluation.json and .html in MODEL.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing report.")] = False,
) -> int:
    """Score a trained model on held-out examples: calibration, risk, intervals, images of another kind."""
    target = (out or model / "evaluation.json").with_suffix(".json")
    existing = [path for path in (target, target.with_suffix(".html")) if path.exists()]
    if existing and not overwrite:
        raise UsageError(f"{existing[0]} exists: choose another name with --out, or replace it with --overwrite")
    for folder in (data, ood):
        if folder is not None and not folder.is_dir():
            raise UsageError(f"{folder}: no such folder")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from rich.console import Console

    from probrt.runtime.hush import hush

    console = Console(highlight=False)
    with console.status("loading TensorFlow"), hush():
        import msgspec

        from probrt.trainer.evaluate.evaluate import evaluate as evaluate_model
        from probrt.trainer.evaluate.evaluate import show
        from probrt.trainer.evaluate.page import page
    with console.status("evaluating"):
        report, examples, found = evaluate_model(model, data, ood, samples, resamples)
    show(report, console)
    target.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    target.with_suffix(".html").write_text(page(report, examples, found), encoding="utf-8")
    console.print(f"{target} and {target.with_suffix('.html').name}", soft_wrap=True)
    return 0
