"""The run of `probrt predict --continue`: adds draws to the rows of an earlier run that need them."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from probrt.runtime.bundle.manifest import Manifest
from probrt.runtime.commands.predict_options import PredictOptions
from probrt.runtime.commands.predict_settings import describe_settings
from probrt.runtime.commands.progress import open_progress, say
from probrt.runtime.errors import InputError, UsageError, printable
from probrt.runtime.images.isolate import open_isolated_reader
from probrt.runtime.images.loader import open_reader
from probrt.runtime.predict.choose import FEW, PredictRequest, choose
from probrt.runtime.predict.draw_policy import ContinuedDraws, parse_tolerances
from probrt.runtime.predict.predictor import Predictor
from probrt.runtime.rows.continuation import needs_draws, restore_answer
from probrt.runtime.rows.coverage import choose_thresholds
from probrt.runtime.rows.earlier import (
    EarlierRows,
    check_labels,
    count_draws,
    find_changed_images,
    open_earlier_bundle,
    read_earlier_rows,
)
from probrt.runtime.rows.maps import MapFolder
from probrt.runtime.rows.novelty import choose_novelty
from probrt.runtime.rows.numbers import Row
from probrt.runtime.rows.output import OutputRequest, RowOutput, StandardOutput, check_out, open_output
from probrt.runtime.rows.pipeline import RowMaker, Run, predict_files
from probrt.runtime.rows.readers import SHARD_LIST
from probrt.runtime.rows.review import choose_review
from probrt.runtime.rows.unfinished import UnfinishedRun
from probrt.runtime.rows.writers import RowsFile, choose_format

MOST_LINES = 10
# Options that a continued row takes from the run that began it, so that all rows of the file mean the same.
_KEPT = {
    "unknown": "unknown",
    "max risk": "max_risk",
    "coverage": "coverage",
    "conformal": "conformal",
    "maps": "maps",
    "overlay": "overlay",
    "seed": "seed",
}
_OPEN = {"maps": "auto", "overlay": False}


@dataclass(frozen=True)
class _Chosen:
    """Rows to be continued: their positions among all rows. faults: by position, why a row cannot be."""

    positions: Sequence[int]
    faults: dict[int, str]


def continue_rows(options: PredictOptions) -> int:
    """Writes the rows of a file anew, with more draws where they need them.

    Returns the exit code: 1 if an image that needs draws has changed or is gone, or if its new row is an error.
    """
    _check_options(options)
    earlier = read_earlier_rows(Path(options.continue_rows))
    bundle = open_earlier_bundle(earlier, options.bundle)
    manifest = bundle.manifest
    check_labels([row for row in earlier.rows if row.get("status") == "ok"], bundle)
    options = _keep_settings(options, earlier)
    path = check_out(options.out, overwrite=options.overwrite, resume=False)
    if path == earlier.path.resolve():
        raise UsageError(f"--out {options.out}: are the rows that are continued; choose another name")
    format = choose_format(options.out) if path else ""
    limits = _read_limits(options, earlier, manifest)
    samples = options.samples or (manifest.posterior.samples if manifest.posterior else None)
    chosen = _choose_rows(earlier, manifest, limits, samples or 0)
    plan = choose(
        bundle,
        PredictRequest(
            samples=samples,
            seed=options.seed,
            variant=options.variant,
            engine=options.engine,
            device=options.device,
            precision=options.precision or "float32",
            few=len(chosen.positions) <= FEW,
        ),
    )
    novelty = choose_novelty(manifest, options.unknown)
    review = None if options.max_risk is None else choose_review(manifest, options.max_risk, plan.samples)
    predictor = Predictor(bundle, plan, options.batch_size, options.threads)
    if chosen.positions:
        predictor.load()  # before anything of the output is touched
    unfinished = path and UnfinishedRun(path)
    maps = None
    if options.maps != "none":
        maps = MapFolder(options.map_folder, options.maps, options.overlay, unfinished.maps if unfinished else None)
    output: RowOutput
    if path is None:
        output = StandardOutput(iter(()))
    else:
        output = open_output(
            OutputRequest(
                file=RowsFile(
                    path=path, format=format, manifest=manifest, novelty=novelty, review=review is not None, maps=maps
                ),
                settings=describe_settings(options, predictor, limits) | {"continued rows": _digest(earlier.path)},
                images=[str(earlier.path)],
                names=iter(()),
                block=1,
                threads=predictor.threads,
                overwrite=options.overwrite,
                resume=False,
            )
        )
    rows = RowMaker(
        bundle=bundle,
        plan=plan,
        thresholds=choose_thresholds(manifest, options.coverage, options.conformal),
        maps=maps,
        novelty=novelty,
        review=review,
    )
    try:
        done = _predict(options, predictor, rows, [earlier.rows[position] for position in chosen.positions])
        written = list(earlier.rows)
        for position, row in zip(chosen.positions, done, strict=True):
            written[position] = row
        output.write(written)
        output.finish()
    finally:
        output.close()
    _name_faults(earlier.rows, chosen.faults)
    errors = sum(row["status"] == "error" for row in done)
    return 1 if errors or chosen.faults else 0


def _check_options(options: PredictOptions) -> None:
    if options.images:
        raise UsageError("--continue: the rows name their images; leave out the others")
    for name, given in {
        "--ray": options.ray,
        "--workers": options.workers,
        "--shard-size": options.shard_size,
        "--effective-samples": options.effective_samples,
        "--resume": options.resume,
        "--variant mean": options.variant == "mean",
    }.items():
        if given:
            raise UsageError(f"--continue: not with {name}; leave it out")


def _keep_settings(options: PredictOptions, earlier: EarlierRows) -> PredictOptions:
    """Returns the options with those of the earlier run; UsageError for one that differs from it."""
    if earlier.settings is None:
        return options
    kept = {}
    for name, option in _KEPT.items():
        given, before = getattr(options, option), earlier.settings.get(name, _OPEN.get(option))
        if given not in (_OPEN.get(option), before):
            flag = f"--{option.replace('_', '-')}"
            was = "the bundle's" if before is None else before
            raise UsageError(f"{flag} {given}: {earlier.path} has {was}, which continued rows keep; leave it out")
        kept[option] = before
    if kept["maps"] != "none" and options.map_folder == earlier.path.with_suffix(".maps"):
        raise UsageError(f"--out {options.out}: {options.map_folder} holds the maps of {earlier.path}; choose another")
    return replace(options, **kept)


def _read_limits(options: PredictOptions, earlier: EarlierRows, manifest: Manifest) -> dict[str, float]:
    """Returns the tolerances by head; UsageError if nothing says which rows need draws."""
    limits = parse_tolerances(options.tolerance, manifest) if options.tolerance else {}
    limits = {head.name: limits[head.name] for head in manifest.heads if head.name in limits and not head.per_position}
    flags = any("review" in row for row in earlier.rows)
    if options.tolerance and not limits:
        raise UsageError(f"--tolerance {options.tolerance}: rows of heads per position hold files, not their errors")
    if not limits and not flags:
        raise UsageError(
            f"{earlier.path}: its rows have no `review`, so nothing says which need draws; give --tolerance, e.g. 0.01"
        )
    if flags and options.max_risk is None:
        raise UsageError(f"{earlier.path}: its rows have `review`; give the --max-risk of their run")
    return limits


def _choose_rows(earlier: EarlierRows, manifest: Manifest, limits: dict[str, float], samples: int) -> _Chosen:
    rows = earlier.rows
    needy = [i for i, row in enumerate(rows) if row.get("status") == "ok" and needs_draws(row, manifest, limits)]
    open_rows = [i for i in needy if count_draws(rows[i]) < samples]
    if needy and not open_rows:
        most = f"; --samples gives more, up to {manifest.posterior.max_samples}" if manifest.posterior else ""
        raise UsageError(f"{earlier.path}: its rows that need draws have {samples} or more already{most}")
    faults = {open_rows[i]: reason for i, reason in find_changed_images([rows[i] for i in open_rows]).items()}
    if open_rows and len(faults) == len(open_rows):
        position, reason = next(iter(faults.items()))
        raise InputError(
            f"{earlier.path}: none of the {len(open_rows)} images that need draws can be used; the first, "
            f"{rows[position]['file']}: {reason}; start where the names in the rows lead to them"
        )
    return _Chosen([i for i in open_rows if i not in faults], faults)


def _predict(options: PredictOptions, predictor: Predictor, maker: RowMaker, rows: Sequence[Row]) -> list[Row]:
    """Returns the rows with all draws of the plan, in their order, and says how many there are."""
    plan, manifest = predictor.plan, predictor.bundle.manifest
    answers = [restore_answer(row, manifest, plan) for row in rows]
    kept = sum(answer is not None for answer in answers)
    start = time.monotonic()
    if not options.quiet:
        begun = "from the draws they have" if kept == len(rows) else "from the first draw"
        if 0 < kept < len(rows):
            begun = f"{kept} from the draws they have, {len(rows) - kept} from the first draw"
        say(f"{predictor.bundle.label}: {len(rows)} rows need draws; {plan.line}, {begun}")
    progress = open_progress(options.quiet, len(rows))
    done: list[Row] = []
    try:
        if rows:
            predict_files(
                Run(
                    names=iter([row["file"] for row in rows]),
                    predictor=predictor,
                    answering=ContinuedDraws(predictor, answers),
                    rows=maker,
                    write=done.extend,
                    on_rows=lambda written: progress.advance(len(written)),
                    open_reader=open_isolated_reader if options.isolate else open_reader,
                )
            )
    finally:
        progress.close()
    if not options.quiet:
        say(f"{len(done)} rows continued in {time.monotonic() - start:.1f} s -> {options.out}")
    return done


def _name_faults(rows: Sequence[Row], faults: dict[int, str]) -> None:
    for position, reason in list(faults.items())[:MOST_LINES]:
        say(f"{printable(rows[position]['file'])}: {reason}; its row is as it was")
    if len(faults) > MOST_LINES:
        say(f"and {len(faults) - MOST_LINES} more")


def _digest(path: Path) -> str:
    """Returns the SHA-256 of a file of rows; of a folder, of the list of its files."""
    with (path / SHARD_LIST if path.is_dir() else path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
