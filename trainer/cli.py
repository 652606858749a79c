"""`probrt train`; light to import."""

import os
from pathlib import Path
from typing import Annotated

import typer

from probrt.runtime.errors import MissingError, UsageError


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
