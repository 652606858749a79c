"""`probrt predict`: options in, exit code out."""

import sys
import time
import warnings
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from probrt.runtime.bundle.bundle import Bundle, default_bundle
from probrt.runtime.errors import InputError, UsageError

if TYPE_CHECKING:
    from probrt.runtime.bundle.manifest import Conformal
    from probrt.runtime.rows.resume import Done


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
    maps: Annotated[
        str, typer.Option(help="Per-position heads: auto, png, npy, nifti, or none to leave them out.")
    ] = "auto",
    overlay: Annotated[
        bool,
        typer.Option("--overlay", help="2-D per-position heads: a picture with the answer laid over the image too."),
    ] = False,
    recursive: Annotated[bool, typer.Option(help="Read the folders inside folders too.")] = True,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images per batch; default: by their size.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; default: this machine's cores.")] = None,
    tolerance: Annotated[
        str, typer.Option(help="Add draws only while an image's standard error is above this: 0.01 or HEAD=0.01,...")
    ] = "",
    max_risk: Annotated[
        float | None, typer.Option(help="Flag rows for review so that the others err at most so often, e.g. 0.02.")
    ] = None,
    coverage: Annotated[
        float | None, typer.Option(help="What sets and intervals hold, of the calibrated ones; default: 0.9.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing --out.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a stopped run's --out.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but faults.")] = False,
) -> int:
    """Answer images with uncertainty, one row each, in the order of the input."""
    from probrt.runtime.commands.progress import Ranking, progress, say
    from probrt.runtime.images.inputs import Skipped
    from probrt.runtime.images.inputs import images as find_images
    from probrt.runtime.predict.adaptive import Adaptive, Fixed, tolerances
    from probrt.runtime.predict.choose import FEW, PredictRequest, choose
    from probrt.runtime.predict.predictor import Predictor
    from probrt.runtime.rows.head_rows import promises
    from probrt.runtime.rows.maps import FORMATS, MapFolder
    from probrt.runtime.rows.overlay import can_overlay
    from probrt.runtime.rows.pipeline import RowMaker, run
    from probrt.runtime.rows.review import review
    from probrt.runtime.rows.writers import open_writer

    if maps not in FORMATS:
        raise UsageError(f"--maps {maps}: choose one of {', '.join(FORMATS)}")
    opened = Bundle.open(bundle or default_bundle())
    if maps == "nifti" and not any(
        head.per_position and len(head.outputs["mean"]) == 4 for head in opened.manifest.heads
    ):
        raise UsageError("--maps nifti: the bundle has no head per voxel; choose auto or npy")
    if overlay and (maps == "none" or not any(can_overlay(head) for head in opened.manifest.heads)):
        raise UsageError("--overlay: needs maps of a 2-D class or Bernoulli head per position; leave it out")
    _check_out(out, overwrite, resume)
    map_folder = Path("predictions.maps") if out == "-" else Path(out).with_suffix(".maps")
    skipped = Skipped()
    names, few = _peeked(find_images(images, skipped, (Path(out), map_folder), recursive), images, FEW)
    plan = choose(opened, PredictRequest(samples, seed, variant, engine, device, precision, few is not None))
    if tolerance and not plan.samples:
        raise UsageError(f"--tolerance {tolerance}: the posterior mean has no draws to add")
    limits = tolerances(tolerance, opened.manifest) if tolerance else {}
    reviewed = None if max_risk is None else review(opened.manifest, max_risk, plan.samples)
    promised = promises(opened.manifest, coverage)
    draws = None if limits else plan.samples
    done = _continued(out, names, opened, plan.engine.name, draws, reviewed is not None, promised) if resume else None
    if not quiet:
        say(f"{opened.label}: {plan.line} ({plan.why})" + (f"; {done.rows} rows are there already" if done else ""))
    # Decoding checks the size itself and refuses earlier than Pillow warns.
    warnings.filterwarnings("ignore", message="Image size", module="PIL")
    predictor = Predictor(opened, plan, batch_size, threads)
    answering = Adaptive(predictor, limits) if limits else Fixed(predictor)
    map_saver = None if maps == "none" else MapFolder(map_folder, maps, overlay)
    rows = RowMaker(opened, plan.engine.name, map_saver, promised, reviewed, done.rows if done else 0)
    total = few
    if total is None and sys.stderr.isatty() and "-" not in images and not quiet:
        total = sum(1 for _ in find_images(images, Skipped(), (Path(out), map_folder), recursive))
    ranking, shown, start = Ranking(), progress(quiet, total), time.monotonic()
    writer = open_writer(
        out, opened.manifest, append=bool(done and done.size), review=reviewed is not None, maps=map_saver
    )
    written = 0

    def seen(new: list[dict[str, object]]) -> None:
        nonlocal written
        written += len(new)
        ranking.add(new)
        shown.advance(len(new))

    try:
        tally = run(names, predictor, answering, rows, writer, seen)
    except BaseException:
        shown.close()
        if out != "-" and not quiet:
            say(f"stopped after {written} rows; continue with --resume")
        raise
    finally:
        writer.close()
    shown.close()
    if not quiet:
        speed = f"{tally.rows / (time.monotonic() - start):.1f} images/s"
        flagged = f" {tally.review} for review," if reviewed else ""
        say(f"{tally.rows} rows, {tally.errors} errors,{flagged} {speed} -> {out}")
        _afterthoughts(tally.several_frames, skipped.line, ranking.worst(), ranking.by)
    return 1 if tally.errors or (done and done.errors) else 0


def _check_out(out: str, overwrite: bool, resume: bool) -> None:
    if overwrite and resume:
        raise UsageError("--overwrite and --resume: choose one")
    if out != "-" and Path(out).exists() and not (overwrite or resume):
        raise UsageError(f"--out {out} exists: choose another name, replace it with --overwrite or go on with --resume")


def _continued(
    out: str,
    names: Iterator[str],
    bundle: Bundle,
    engine: str,
    draws: int | None,
    review: bool,
    promised: "dict[str, Conformal]",
) -> "Done | None":
    from probrt.runtime.rows.resume import resume

    if out == "-":
        raise UsageError("--resume: standard output cannot be continued; name a file with --out")
    return resume(Path(out), names, bundle.label, engine, draws, review, promised) if Path(out).exists() else None


def _peeked(found: Iterator[str], named: list[str], few: int) -> tuple[Iterator[str], int | None]:
    """The same names, and how many they are if they are at most `few`; InputError if there are none."""
    first = list(islice(found, few + 1))
    if not first:
        raise InputError(f"{', '.join(named)}: no images there (.png, .jpg, .webp, .bmp, .tif, .gif, .npy, ...)")
    return chain(first, found), len(first) if len(first) <= few else None


def _afterthoughts(several_frames: int, skipped: str, worst: list[tuple[float, str]], by: str) -> None:
    from probrt.runtime.commands.progress import say

    if several_frames:
        files = "1 file holds" if several_frames == 1 else f"{several_frames} files hold"
        say(f"{files} several frames or pages: the first was taken")
    if skipped:
        say(skipped)
    if len(worst) > 1:
        say(f"most uncertain by {by}:")
        for value, name in worst:
            say(f"  {value:.4g}  {name}")
