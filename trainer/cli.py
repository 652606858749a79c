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
) -> int:
    """Fit a probabilistic conv net to labelled images."""
    if out.exists() and not overwrite:
        raise UsageError(f"--out {out} exists: choose another name, or replace it with --overwrite")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        raise MissingError(f"KERAS_BACKEND is {os.environ['KERAS_BACKEND']!r}: probrt trains with tensorflow; unset it")
    from rich.console import Console

    from probrt.runtime.hush import hush

    console = Console(highlight=False)
    with console.status("loading TensorFlow"), hush():
        from probrt.trainer.train import train as train_model
    train_model(config, out, console)
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
