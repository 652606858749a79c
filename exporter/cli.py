"""`probrt export`; light to import."""

from pathlib import Path
from typing import Annotated

import typer

from probrt.runtime.errors import UsageError


def export(
    models: Annotated[
        list[Path],
        typer.Argument(help="A model directory that `probrt train` wrote; several make a deep ensemble."),
    ],
    artifacts: Annotated[
        Path, typer.Option(help="Folder for bundles; the model's next version is written below it.")
    ] = Path("artifacts"),
    name: Annotated[str | None, typer.Option(help="The bundle's name; default: that of the (first) model.")] = None,
    draws: Annotated[
        int | None,
        typer.Option(
            help="Number of draws in the bank, a multiple of 8; default: 32, or one per member of an ensemble "
            "without random weights."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The bundle's own seed, 0 or more.")] = 0,
    formats: Annotated[str, typer.Option(help="Comma-separated list of savedmodel, tflite, onnx; default: all.")] = "",
    precisions: Annotated[
        str,
        typer.Option(
            help="Comma-separated list of float32, float16, dynamic, int8; dynamic exists for the posterior mean, "
            "int8 for that and the draws of the bank."
        ),
    ] = "float32",
    variants: Annotated[str, typer.Option(help="Comma-separated list of mean, draws, sampled.")] = "mean,draws,sampled",
    select: Annotated[
        bool, typer.Option(help="Choose the bank's draws so that few stand for many; otherwise take 0, 1, 2, ...")
    ] = True,
    tune: Annotated[
        bool,
        typer.Option(
            help="Move the noise of the final layers in the chosen draws, so that 8 of them stand for more; otherwise "
            "leave it as generated."
        ),
    ] = True,
    layout: Annotated[
        str,
        typer.Option(
            help="bundle, or also triton (a model repository in artifacts/triton/), openvino (a model folder for "
            "OpenVINO Model Server in artifacts/openvino/) or mlflow (one for MLflow in artifacts/mlflow/)."
        ),
    ] = "bundle",
    sign: Annotated[Path | None, typer.Option(help="Private key (PEM) to sign the bundle with.")] = None,
    version: Annotated[int | None, typer.Option(help="Version number; default: the next.")] = None,
    auxiliary: Annotated[bool, typer.Option("--auxiliary", help="Keep the auxiliary heads.")] = False,
    novelty_map: Annotated[
        bool,
        typer.Option(
            "--novelty-map", help="Also give the novelty of each position, for models with 2-D per-position heads."
        ),
    ] = False,
) -> int:
    """Turn a trained model into a bundle, after checking every file against the model."""
    if draws is not None and (draws < 8 or draws % 8 or draws > 1024):
        raise UsageError(f"--draws {draws}: a bank has 8, 16, 24 … up to 1024 draws")
    if not 0 <= seed < 2**31:
        raise UsageError(f"--seed {seed}: must be 0 to {2**31 - 1}")
    if version is not None and version < 1:
        raise UsageError(f"--version {version}: must be 1 or more")
    if layout not in ("bundle", "triton", "openvino", "mlflow"):
        raise UsageError(f"--layout {layout}: choose bundle, triton, openvino or mlflow")
    if layout in ("triton", "openvino") and ((formats and "onnx" not in formats) or "float32" not in precisions):
        raise UsageError(f"--layout {layout}: needs onnx in --formats and float32 in --precisions")
    import os

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from rich.console import Console

    console = Console(highlight=False)
    from probrt.runtime.hush import hush
    from probrt.runtime.time_left import show_progress

    with console.status("loading TensorFlow"), hush():
        from probrt.exporter.export import export as export_model
        from probrt.exporter.formats import BY_PRECISION, FORMATS, VARIANTS, parse_names
        from probrt.exporter.parity import Difference
        from probrt.exporter.plan import ExportRequest
    from probrt.exporter.summary import (
        format_next_commands,
        list_faults,
        make_bank_table,
        make_differences_table,
        make_files_table,
        make_worth_table,
    )
    from probrt.runtime.bundle.float_layers import list_float_layers

    request = ExportRequest(
        draws=draws,
        seed=seed,
        version=version,
        formats=parse_names(formats, FORMATS, "--formats") if formats else None,
        precisions=parse_names(precisions, tuple(BY_PRECISION), "--precisions"),
        variants=parse_names(variants, VARIANTS, "--variants"),
        select=select,
        tune=tune,
        auxiliary=auxiliary,
        key=sign,
        members=tuple(models[1:]),
        name=name,
        novelty_map=novelty_map,
    )
    differences: list[Difference] = []
    try:
        # Decoders of images print to standard error what they make of the damaged pictures of the check.
        with show_progress(console, "export") as show, hush():
            result = export_model(models[0], artifacts, request, on_step=show, on_check=differences.append)
    finally:
        # Also before a fault: the table shows which files it is in.
        if differences:
            console.print(make_differences_table(differences))
            for line in list_faults(differences):
                console.print(line, soft_wrap=True, markup=False)
    posterior = result.bundle.manifest.posterior
    if posterior and posterior.selection:
        console.print(make_bank_table(posterior.selection))
    if posterior and posterior.tuning:
        console.print(f"tuned {posterior.tuning.summary}", soft_wrap=True, markup=False)
    if posterior and posterior.effective:
        console.print(make_worth_table(posterior.effective))
    console.print(make_files_table(result.bundle, result.differences))
    for line in list_float_layers(result.bundle.manifest):
        console.print(line, soft_wrap=True, markup=False)
    if layout in ("triton", "openvino"):
        from probrt.exporter import openvino_models, triton

        write = triton.write_repository if layout == "triton" else openvino_models.write_model
        with console.status("joining the files of the bank"):
            folder = write(result.bundle, artifacts / layout)
        console.print(f"for {layout}: {folder}", soft_wrap=True)
    if layout == "mlflow":
        from probrt.exporter.mlflow_layout import write_mlflow_model

        folder = write_mlflow_model(result.bundle, artifacts / "mlflow", models[0])
        console.print(f"MLflow model: {folder}", soft_wrap=True)
    console.print(format_next_commands(result.bundle), soft_wrap=True)
    return 0
