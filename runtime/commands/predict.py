"""The options of `probrt predict`."""

from typing import Annotated

import typer


def predict(
    images: Annotated[
        list[str] | None,
        typer.Argument(
            help="Images: folders, files, globs, lists (.txt, .csv, .parquet), or - for a list on standard input."
        ),
    ] = None,
    bundle: Annotated[str, typer.Option(help="Bundle folder; default: the only model in artifacts/.")] = "",
    out: Annotated[
        str, typer.Option(help="File of the rows: .jsonl, .csv or .parquet; - for standard output.")
    ] = "predictions.jsonl",
    samples: Annotated[int | None, typer.Option(help="Draws per image; default: the bundle's.")] = None,
    effective_samples: Annotated[
        float | None,
        typer.Option(
            min=1.0, help="In place of --samples: the cheapest draws that are worth so many independent ones."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the draws; default: the bundle's.")] = None,
    variant: Annotated[str | None, typer.Option(help="mean, draws or sampled; default: the fastest that fits.")] = None,
    engine: Annotated[str, typer.Option(help="auto, litert, onnxruntime, openvino or tensorflow.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, gpu, directml or coreml.")] = "auto",
    precision: Annotated[
        str | None,
        typer.Option(
            help="float32, float16, dynamic or int8 files; bfloat16: arithmetic of the engine. Default: float32, or "
            "what is cheapest for --effective-samples."
        ),
    ] = None,
    maps: Annotated[
        str, typer.Option(help="Files for per-position heads: auto, png, npy, nifti, or none to leave them out.")
    ] = "auto",
    overlay: Annotated[
        bool,
        typer.Option(
            "--overlay",
            help="Also save 2-D answers per position, of heads and novelty, drawn over the image.",
        ),
    ] = False,
    recursive: Annotated[bool, typer.Option(help="Also read folders inside folders.")] = True,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images per batch; default: by their size.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; default: the cores of this machine.")] = None,
    tolerance: Annotated[
        str,
        typer.Option(
            help="Add draws only while the standard error of an image is above this: 0.01, or HEAD=0.01,... by head."
        ),
    ] = "",
    continue_rows: Annotated[
        str,
        typer.Option(
            "--continue",
            metavar="ROWS",
            help="In place of images: add draws to rows of an earlier run that are flagged for review or above "
            "--tolerance, up to --samples.",
        ),
    ] = "",
    unknown: Annotated[
        str | None,
        typer.Option(
            help="Level of novelty: the share of images like the training images that may be called unknown; "
            "off leaves the verdict out; default: 0.01."
        ),
    ] = None,
    max_risk: Annotated[
        float | None,
        typer.Option(help="Flag rows for review so that at most this share of the others is wrong, e.g. 0.02."),
    ] = None,
    coverage: Annotated[
        float | None,
        typer.Option(help="Coverage of sets and intervals, one that the bundle is calibrated for; default: 0.9."),
    ] = None,
    conformal: Annotated[
        str | None,
        typer.Option(help="Method of sets and intervals: lac, aps, raps, scaled; default: the first of the bundle."),
    ] = None,
    isolate: Annotated[
        bool,
        typer.Option(
            "--isolate", help="Decode in processes of their own: one that dies or hangs costs its image alone."
        ),
    ] = False,
    ray: Annotated[
        str,
        typer.Option(
            help="Predict with the workers of a Ray: local starts one here, auto or HOST:PORT is one that runs; --out "
            "is then a folder of Parquet files, and images may be addresses such as s3://bucket/folder."
        ),
    ] = "",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Workers with --ray, of --threads cores each (1 there); default: all.")
    ] = None,
    shard_size: Annotated[
        int | None, typer.Option(min=1, help="Images in a file with --ray, in whole batches; default: 2048.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing --out.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the --out of a stopped run.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but faults.")] = False,
) -> int:
    """Predict images with uncertainty: one row each, in the order of the input."""
    from probrt.runtime.commands.predict_options import PredictOptions
    from probrt.runtime.commands.predict_run import run

    return run(
        PredictOptions(
            images=images or [],
            bundle=bundle,
            out=out,
            samples=samples,
            effective_samples=effective_samples,
            seed=seed,
            variant=variant,
            engine=engine,
            device=device,
            precision=precision,
            maps=maps,
            overlay=overlay,
            recursive=recursive,
            batch_size=batch_size,
            threads=threads,
            tolerance=tolerance,
            continue_rows=continue_rows,
            unknown=unknown,
            max_risk=max_risk,
            coverage=coverage,
            conformal=conformal,
            isolate=isolate,
            ray=ray,
            workers=workers,
            shard_size=shard_size,
            overwrite=overwrite,
            resume=resume,
            quiet=quiet,
        )
    )
