"""The run of `probrt predict`: checks the options, chooses what runs, writes the rows, and prints the summary."""

import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from probrt.runtime.bundle.bundle import Bundle, find_default_bundle
from probrt.runtime.bundle.manifest import Conformal
from probrt.runtime.commands.progress import ProgressDisplay, Ranking, open_progress, say
from probrt.runtime.commands.stuck import end_when_stuck
from probrt.runtime.errors import InputError, UsageError
from probrt.runtime.images.inputs import SkippedFiles, find_images
from probrt.runtime.predict.choose import FEW, Plan, PredictRequest, choose
from probrt.runtime.predict.draw_policy import AdaptiveDraws, FixedDraws, parse_tolerances
from probrt.runtime.predict.predictor import Predictor
from probrt.runtime.rows.coverage import choose_thresholds
from probrt.runtime.rows.maps import FORMATS, MapFolder
from probrt.runtime.rows.numbers import Row
from probrt.runtime.rows.overlay import can_overlay
from probrt.runtime.rows.pipeline import RowMaker, Run, Tally, predict_files
from probrt.runtime.rows.resume import FinishedRows, ResumeRequest, resume_rows
from probrt.runtime.rows.review import choose_review
from probrt.runtime.rows.writers import RowsFile, open_writer


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """The options of the command, as `predict` names them."""

    images: Sequence[str]
    bundle: str
    out: str
    samples: int | None
    seed: int | None
    variant: str | None
    engine: str
    device: str
    precision: str
    maps: str
    overlay: bool
    recursive: bool
    batch_size: int | None
    threads: int | None
    tolerance: str
    max_risk: float | None
    coverage: float | None
    conformal: str | None
    overwrite: bool
    resume: bool
    quiet: bool

    @property
    def map_folder(self) -> Path:
        """Where the maps go: a folder beside the rows."""
        return Path("predictions.maps") if self.out == "-" else Path(self.out).with_suffix(".maps")


@end_when_stuck()
def run(options: PredictOptions) -> int:
    """Predicts images and returns the exit code: 1 if some rows are errors, else 0."""
    bundle = _open_bundle(options)
    manifest = bundle.manifest
    _check_out(options)
    images = ImageNames(options)
    plan = _choose_plan(bundle, options, images)
    limits = parse_tolerances(options.tolerance, manifest) if options.tolerance else {}
    review = None if options.max_risk is None else choose_review(manifest, options.max_risk, plan.samples)
    thresholds = choose_thresholds(manifest, options.coverage, options.conformal)
    finished = _resume(bundle, options, images, plan, thresholds, draws=None if limits else plan.samples)
    if not options.quiet:
        there = f"; {finished.rows} rows are there already" if finished else ""
        say(f"{bundle.label}: {plan.line} ({plan.why}){there}")
    # The decoder checks the size itself, and refuses smaller images than those that Pillow warns of.
    warnings.filterwarnings("ignore", message="Image size", module="PIL")
    predictor = Predictor(bundle, plan, options.batch_size, options.threads)
    maps = None if options.maps == "none" else MapFolder(options.map_folder, options.maps, options.overlay)
    rows = RowMaker(
        bundle=bundle,
        engine=plan.engine.name,
        thresholds=thresholds,
        maps=maps,
        review=review,
        first=finished.rows if finished else 0,
    )
    append = bool(finished and finished.size)
    display = RunDisplay(options, open_progress(options.quiet, images.count()))
    writer = open_writer(
        RowsFile(path=options.out, manifest=manifest, append=append, review=review is not None, maps=maps)
    )
    try:
        tally = predict_files(
            Run(
                names=images.names,
                predictor=predictor,
                answering=AdaptiveDraws(predictor, limits) if limits else FixedDraws(predictor),
                rows=rows,
                writer=writer,
                on_rows=display.add,
            )
        )
    except BaseException:
        display.stop()
        raise
    finally:
        writer.close()
    display.finish(tally, images.skipped)
    return 1 if tally.errors or (finished and finished.errors) else 0


class ImageNames:
    """The names of the images of a run.

    names: in the order of the input. few: how many there are, if they are few enough to be worth a quick start.
    skipped: what the folders hold besides images, complete at the end of `names`.
    Raises InputError if there are none.
    """

    def __init__(self, options: PredictOptions) -> None:
        self._options = options
        self.skipped = SkippedFiles()
        names = self._find(self.skipped)
        first = list(islice(names, FEW + 1))
        if not first:
            raise InputError(
                f"{', '.join(options.images)}: no images there (.png, .jpg, .webp, .bmp, .tif, .gif, .npy, ...)"
            )
        self.names = chain(first, names)
        self.few = len(first) if len(first) <= FEW else None

    def count(self) -> int | None:
        """How many there are; None where counting would take a second look for a number that nobody sees."""
        options = self._options
        if self.few is not None or options.quiet or not sys.stderr.isatty() or "-" in options.images:
            return self.few
        return sum(1 for _ in self._find(SkippedFiles()))

    def _find(self, skipped: SkippedFiles) -> Iterator[str]:
        options = self._options
        return find_images(options.images, skipped, (Path(options.out), options.map_folder), options.recursive)


@dataclass
class RunDisplay:
    """What a run prints while it works and when it ends."""

    options: PredictOptions
    progress: ProgressDisplay
    ranking: Ranking = field(default_factory=Ranking)
    rows: int = 0
    start: float = field(default_factory=time.monotonic)

    def add(self, rows: list[Row]) -> None:
        """Counts rows that have just been written."""
        self.rows += len(rows)
        self.ranking.add(rows)
        self.progress.advance(len(rows))

    def stop(self) -> None:
        """Ends the display of a run that did not finish."""
        self.progress.close()
        if self.options.out != "-" and not self.options.quiet:
            say(f"stopped after {self.rows} rows; continue with --resume")

    def finish(self, tally: Tally, skipped: SkippedFiles) -> None:
        """Prints the summary of a run that finished."""
        self.progress.close()
        if self.options.quiet:
            return
        speed = f"{tally.rows / (time.monotonic() - self.start):.1f} images/s"
        review = "" if self.options.max_risk is None else f" {tally.review} for review,"
        say(f"{tally.rows} rows, {tally.errors} errors,{review} {speed} -> {self.options.out}")
        if tally.several_frames:
            files = "1 file holds" if tally.several_frames == 1 else f"{tally.several_frames} files hold"
            say(f"{files} several frames or pages: the first was taken")
        if skipped.line:
            say(skipped.line)
        worst = self.ranking.worst()
        if len(worst) > 1:
            say(f"most uncertain by {self.ranking.by}:")
            for uncertainty, name in worst:
                say(f"  {uncertainty:.4g}  {name}")


def _open_bundle(options: PredictOptions) -> Bundle:
    """Opens the bundle; UsageError if it cannot have the maps that are asked for."""
    if options.maps not in FORMATS:
        raise UsageError(f"--maps {options.maps}: choose one of {', '.join(FORMATS)}")
    bundle = Bundle.open(options.bundle or find_default_bundle())
    heads = bundle.manifest.heads
    if options.maps == "nifti" and not any(head.per_position and len(head.outputs["mean"]) == 4 for head in heads):
        raise UsageError("--maps nifti: the bundle has no head per voxel; choose auto or npy")
    if options.overlay and (options.maps == "none" or not any(can_overlay(head) for head in heads)):
        raise UsageError("--overlay: needs maps of a 2-D class or Bernoulli head per position; leave it out")
    return bundle


def _check_out(options: PredictOptions) -> None:
    if options.overwrite and options.resume:
        raise UsageError("--overwrite and --resume: choose one")
    if options.out != "-" and Path(options.out).exists() and not (options.overwrite or options.resume):
        raise UsageError(
            f"--out {options.out} exists: choose another name, replace it with --overwrite or go on with --resume"
        )


def _choose_plan(bundle: Bundle, options: PredictOptions, images: ImageNames) -> Plan:
    plan = choose(
        bundle,
        PredictRequest(
            samples=options.samples,
            seed=options.seed,
            variant=options.variant,
            engine=options.engine,
            device=options.device,
            precision=options.precision,
            few=images.few is not None,
        ),
    )
    if options.tolerance and not plan.samples:
        raise UsageError(f"--tolerance {options.tolerance}: the posterior mean has no draws to add")
    return plan


def _resume(
    bundle: Bundle,
    options: PredictOptions,
    images: ImageNames,
    plan: Plan,
    thresholds: dict[str, Conformal],
    *,
    draws: int | None,
) -> FinishedRows | None:
    """What a stopped run left of `--out`; None if there is nothing to continue."""
    if not options.resume:
        return None
    if options.out == "-":
        raise UsageError("--resume: standard output cannot be continued; name a file with --out")
    if not Path(options.out).exists():
        return None
    return resume_rows(
        ResumeRequest(
            out=Path(options.out),
            names=images.names,
            bundle=bundle.label,
            engine=plan.engine.name,
            draws=draws,
            review=options.max_risk is not None,
            thresholds=thresholds,
        )
    )
