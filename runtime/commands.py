"""The commands `predict`, `inspect` and `verify`: options in, exit code out."""

import time
import warnings
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Annotated

import typer

from probrt.runtime.bundle import Bundle, default_bundle
from probrt.runtime.errors import InputError, ProbrtError, UsageError

BundleArgument = Annotated[str, typer.Argument(help="A version folder, or a model folder (newest version).")]


def predict(
    images: Annotated[
        list[str],
        typer.Argument(help="Images: folders, files, globs, lists (.txt, .csv, .parquet), or - for a list on stdin."),
    ],
    bundle: Annotated[str, typer.Option(help="Bundle folder; default: the only model in artifacts/.")] = "",
    out: Annotated[str, typer.Option(help="Rows: .jsonl, .csv or .parquet; - for stdout.")] = "predictions.jsonl",
    samples: Annotated[int | None, typer.Option(help="Draws per image; default: the bundle's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the draws; default: the bundle's.")] = None,
    variant: Annotated[str | None, typer.Option(help="mean, draws or sampled; default: what fits.")] = None,
    engine: Annotated[str, typer.Option(help="auto, litert, onnxruntime, openvino, tensorflow.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, gpu, directml, coreml.")] = "auto",
    precision: Annotated[str, typer.Option(help="float32, float16, dynamic or int8 files.")] = "float32",
    maps: Annotated[str, typer.Option(help="Per-position heads as png or npy.")] = "png",
    recursive: Annotated[bool, typer.Option(help="Read the folders inside folders too.")] = True,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images per batch; default: by their size.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; default: this machine's cores.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing --out.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but faults.")] = False,
) -> int:
    """Answer images with uncertainty, one row each, in the order of the input."""
    from probrt.runtime.choose import FEW, Request, choose
    from probrt.runtime.inputs import Skipped
    from probrt.runtime.inputs import images as find_images
    from probrt.runtime.maps import MapFolder
    from probrt.runtime.predict import RowMaker, run
    from probrt.runtime.predictor import Predictor
    from probrt.runtime.progress import Ranking, progress, say
    from probrt.runtime.writers import open_writer

    if maps not in ("png", "npy"):
        raise UsageError(f"--maps {maps}: choose png or npy")
    opened = Bundle.open(bundle or default_bundle())
    if out != "-" and Path(out).exists() and not overwrite:
        raise UsageError(f"--out {out} exists: choose another name, or replace it with --overwrite")
    map_folder = Path("predictions.maps") if out == "-" else Path(out).with_suffix(".maps")
    skipped = Skipped()
    names, few = _peeked(find_images(images, skipped, (Path(out), map_folder), recursive), images, FEW)
    plan = choose(opened, Request(samples, seed, variant, engine, device, precision, few is not None))
    if not quiet:
        say(f"{opened.label}: {plan.line}")
    # Decoding checks the size itself and refuses earlier than Pillow warns.
    warnings.filterwarnings("ignore", message="Image size", module="PIL")
    predictor = Predictor(opened, plan, batch_size, threads)
    rows = RowMaker(opened, plan.engine.name, MapFolder(map_folder, maps), 0)
    ranking, shown, start = Ranking(), progress(quiet, few), time.monotonic()

    writer = open_writer(out, opened.manifest, append=False)

    def seen(written: list[dict[str, object]]) -> None:
        ranking.add(written)
        shown.advance(len(written))

    try:
        tally = run(names, predictor, rows, writer, seen)
    finally:
        writer.close()
        shown.close()
    if not quiet:
        _summary(tally.rows, tally.errors, time.monotonic() - start, out, skipped.line)
        if tally.rows > 1 and ranking.by:
            say(f"most uncertain by {ranking.by}:")
            for value, name in ranking.worst():
                say(f"  {value:.4g}  {name}")
    return 1 if tally.errors else 0


def _peeked(found: Iterator[str], named: list[str], few: int) -> tuple[Iterator[str], int | None]:
    """The same names, and how many they are if they are at most `few`; InputError if there are none."""
    first = list(islice(found, few + 1))
    if not first:
        raise InputError(f"{', '.join(named)}: no images there (.png, .jpg, .webp, .bmp, .tif, .gif, .npy, ...)")
    return chain(first, found), len(first) if len(first) <= few else None


def _summary(rows: int, errors: int, seconds: float, out: str, skipped: str) -> None:
    from probrt.runtime.progress import say

    say(f"{rows} rows, {errors} errors, {rows / max(seconds, 1e-9):.1f} images/s -> {out}")
    if skipped:
        say(skipped)


def verify(bundle: BundleArgument) -> int:
    """Check every byte of a bundle: manifest, listing, links, and the digest of each file."""
    opened = Bundle.open(bundle)
    faults = []
    for file in opened.manifest.files:
        try:
            opened.check(file)
        except ProbrtError as error:
            faults.append(str(error))
    if faults:
        from probrt.runtime.errors import BundleError

        raise BundleError("; ".join(faults))
    total = sum(file.bytes for file in opened.manifest.files)
    print(f"{opened.label}: {len(opened.manifest.files)} files, {total} bytes, all as exported")
    return 0


def inspect(bundle: BundleArgument) -> int:
    """Say what a bundle holds: input, heads, files, draws, calibration, parity."""
    from probrt.runtime.inspect import lines

    for line in lines(Bundle.open(bundle)):
        print(line)
    return 0
