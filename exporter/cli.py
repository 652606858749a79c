"""`probrt export`; light to import."""

from pathlib import Path
from typing import Annotated

import typer

from probrt.runtime.errors import UsageError


def export(
    models: Annotated[
        list[Path],
        typer.Argument(help="A model directory, as `probrt train` writes it; several make a deep ensemble."),
    ],
    artifacts: Annotated[
        Path, typer.Option(help="Where bundles go; the next version of the model is made there.")
    ] = Path("artifacts"),
    name: Annotated[str | None, typer.Option(help="Of the bundle; default: the (first) model's.")] = None,
    draws: Annotated[
        int | None,
        typer.Option(
            help="Draws in the bank, a multiple of 8; default: 32, of an ensemble without random weights its members."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The bundle's own seed, 0 or more.")] = 0,
    formats: Annotated[str, typer.Option(help="Of savedmodel, tflite, onnx; default: all.")] = "",
    precisions: Annotated[
        str, typer.Option(help="Of float32, float16, dynamic, int8; the last two are for the posterior mean.")
    ] = "float32",
    variants: Annotated[str, typer.Option(help="Of mean, draws, sampled.")] = "mean,draws,sampled",
    select: Annotated[
        bool, typer.Option(help="Choose the bank's draws so that few stand for many; otherwise 0, 1, 2, ...")
    ] = True,
    layout: Annotated[
        str, typer.Option(help="bundle, or triton: a model repository in artifacts/triton/ as well.")
    ] = "bundle",
    sign: Annotated[Path | None, typer.Option(help="A private key (PEM) to sign the bundle with.")] = None,
    version: Annotated[int | None, typer.Option(help="Version number; default: the next.")] = None,
    auxiliary: Annotated[bool, typer.Option("--auxiliary", help="Keep the auxiliary heads.")] = False,
) -> int:
    """Turn a trained model into a bundle whose every file was checked against the model."""
    if draws is not None and (draws < 8 or draws % 8 or draws > 1024):
        raise UsageError(f"--draws {draws}: a bank has 8, 16, 24 … up to 1024 draws")
    if not 0 <= seed < 2**31:
        raise UsageError(f"--seed {seed}: must be 0 to {2**31 - 1}")
    if version is not None and version < 1:
        raise UsageError(f"--version {version}: must be 1 or more")
    if layout not in ("bundle", "triton"):
        raise UsageError(f"--layout {layout}: choose bundle or triton")
    import os

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from rich.console import Console

    console = Console(highlight=False)
    from probrt.runtime.hush import hush

    with console.status("loading TensorFlow"), hush():
        from probrt.exporter import formats as table
        from probrt.exporter.export import ExportRequest
        from probrt.exporter.export import export as export_model
    from probrt.exporter.summary import bank_table, differences_table, files_table, next_commands

    request = ExportRequest(
        draws,
        seed,
        version,
        table.chosen(formats, table.FORMATS, "--formats") if formats else None,
        table.chosen(precisions, tuple(table.BY_PRECISION), "--precisions"),
        table.chosen(variants, table.VARIANTS, "--variants"),
        select,
        auxiliary,
        sign,
        tuple(models[1:]),
        name,
    )
    checked = []
    try:
        with console.status("exporting") as status:
            exported = export_model(
                models[0],
                artifacts,
                request,
                doing=lambda step: status.update(f"exporting: {step}"),
                checked=checked.append,
            )
    finally:
        if checked:
            console.print(differences_table(checked))
    if exported.bundle.manifest.posterior and exported.bundle.manifest.posterior.selection:
        console.print(bank_table(exported.bundle.manifest.posterior.selection))
    console.print(files_table(exported.bundle, exported.differences))
    if layout == "triton":
        from probrt.exporter.triton import publish

        console.print(f"model repository: {publish(exported.bundle, artifacts / 'triton')}")
    console.print(next_commands(exported.bundle), soft_wrap=True)
    return 0
