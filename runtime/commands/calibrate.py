"""`probrt calibrate`: a model directory on labelled images, or a bundle on stored rows."""

from pathlib import Path
from typing import Annotated

import typer

from probrt.runtime.errors import UsageError
from probrt.runtime.functions import load_function


def calibrate(
    subject: Annotated[Path, typer.Argument(help="A model directory, or a bundle.", metavar="MODEL|BUNDLE")],
    data: Annotated[
        Path,
        typer.Argument(help="For a model: a folder of labelled images. For a bundle: rows of `probrt predict`."),
    ],
    labels: Annotated[
        Path | None, typer.Argument(help="For a bundle: CSV of true labels, file_name and a column per head.")
    ] = None,
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="For a model: DATA are images without labels; renew novelty alone.")
    ] = False,
    samples: Annotated[int, typer.Option(min=1, max=1024, help="For a model: draws per answer.")] = 16,
    sign: Annotated[Path | None, typer.Option(help="For a bundle: private key (PEM) to sign the new version.")] = None,
) -> int:
    """Renew the calibration of a model or of a bundle on images of the place where it is used."""
    if (subject / "model.json").exists():
        if labels is not None or sign is not None:
            raise UsageError(f"{subject}: a model takes a folder of labelled images; LABELS and --sign are for bundles")
        code: int = load_function("probrt.trainer.cli:calibrate_folder")(subject, data, samples, unlabelled)
        return code
    if unlabelled:
        raise UsageError("--unlabelled: the graphs of a bundle hold its novelty; calibrate the model and export again")
    if labels is None:
        raise UsageError(f"{subject}: not a model directory; for a bundle give PREDICTIONS and LABELS")
    from probrt.runtime.commands.calibrate_bundle import calibrate_bundle

    return calibrate_bundle(subject, data, labels, sign)
