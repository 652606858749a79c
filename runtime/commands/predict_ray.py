"""The run of `probrt predict --ray`: checks the options, starts the workers, and writes the list of shards."""

import hashlib
import os
import time
from pathlib import Path

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import NAME
from probrt.runtime.cluster.folder import ShardFolder
from probrt.runtime.cluster.pool import PoolRequest, WorkerPool, connect
from probrt.runtime.cluster.shards import SHARD_SIZE, ShardRecord, cut_shards, round_up
from probrt.runtime.cluster.stores import find_stored_images
from probrt.runtime.cluster.worker import Job, digest_run
from probrt.runtime.commands.predict_images import ImageNames
from probrt.runtime.commands.predict_options import PredictOptions
from probrt.runtime.commands.predict_settings import describe_settings
from probrt.runtime.commands.progress import open_progress, say
from probrt.runtime.errors import UsageError
from probrt.runtime.images.batches import block_size
from probrt.runtime.predict.choose import Plan, PredictRequest
from probrt.runtime.predict.draw_policy import AdaptiveDraws, FixedDraws, parse_tolerances
from probrt.runtime.predict.predictor import Predictor
from probrt.runtime.rows.coverage import choose_thresholds
from probrt.runtime.rows.novelty import choose_novelty
from probrt.runtime.rows.review import choose_review
from probrt.runtime.rows.writers import choose_format


def find_ray_images(options: PredictOptions) -> ImageNames:
    """Finds the images, local ones and those at addresses; what the run itself writes is none of them."""
    return ImageNames(options.images, [Path(options.out)], options.recursive, find_stored_images)


def run_on_ray(options: PredictOptions, bundle: Bundle, images: ImageNames, plan: Plan) -> int:
    """Predicts images with the workers of a Ray and returns the exit code: 1 if some rows are errors, else 0."""
    choose_format("shards.parquet")  # needs pyarrow
    folder = ShardFolder(options.out)
    manifest = bundle.manifest
    _check_options(options, bundle, folder)
    limits = parse_tolerances(options.tolerance, manifest) if options.tolerance else {}
    choose_thresholds(manifest, options.coverage, options.conformal)
    novelty = choose_novelty(manifest, options.unknown)
    if options.max_risk is not None:
        choose_review(manifest, options.max_risk, plan.samples)
    predictor = Predictor(bundle, plan, options.batch_size, options.threads or 1)
    predictor.load()  # a fault of the bundle is found here, before any worker starts
    regroups = AdaptiveDraws.regroups if limits else FixedDraws.regroups
    block = block_size(manifest.input, predictor.batch_size, regroups)
    size = round_up(options.shard_size or SHARD_SIZE, block)
    settings = describe_settings(options, predictor, limits) | {"threads": predictor.threads, "shard size": size}
    job = Job(
        cwd=str(Path.cwd()),
        bundle=bundle.path.absolute(),
        manifest=hashlib.sha256((bundle.path / NAME).read_bytes()).hexdigest(),
        request=PredictRequest(
            samples=plan.samples or None,
            seed=options.seed,
            variant=plan.variant,
            engine=plan.engine.name,
            device=plan.device,
            precision=plan.precision,
        ),
        batch_size=predictor.batch_size,
        threads=predictor.threads,
        tolerance=options.tolerance,
        unknown=options.unknown,
        max_risk=options.max_risk,
        coverage=options.coverage,
        conformal=options.conformal,
        maps=options.maps,
        overlay=options.overlay,
        out=folder.out,
        run=digest_run(settings),
        resume=options.resume,
    )
    files = _read_files(bundle)
    wanted_cpus = (options.workers or 0) * predictor.threads
    with connect(options.ray, sum(map(len, files.values())), wanted_cpus) as cluster:
        pool = WorkerPool(
            cluster,
            PoolRequest(
                job=job,
                files=files,
                shards=cut_shards(images.names, size),
                workers=options.workers,
                gpus=int(plan.device == "cuda"),
                report=say,
            ),
        )
        workers = pool.count
        folder.start(settings, options.images, overwrite=options.overwrite, resume=options.resume)
        if not options.quiet:
            say(f"{bundle.label}: {plan.line}; {workers} workers, shards of {size} images")
        records = _collect(options, pool, images)
    stale = folder.finish(records, bundle.label)
    if not options.quiet and stale:
        say(f"removed {len(stale)} files of an earlier run that had more images")
    if not options.quiet and novelty is not None and novelty.level is not None:
        say(f"{sum(record.unknown for record in records)} unknown (novelty p-value up to {novelty.level:.3g})")
    return int(any(record.errors for record in records))


def _check_options(options: PredictOptions, bundle: Bundle, folder: ShardFolder) -> None:
    if options.overwrite and options.resume:
        raise UsageError("--overwrite and --resume: choose one")
    if options.isolate:
        raise UsageError("--isolate and --ray: choose one; the workers of --ray are processes of their own")
    if "-" in options.images:
        raise UsageError("--ray: standard input cannot be read again; name a list")
    if folder.out.startswith("memory://"):
        raise UsageError(f"--out {folder.out}: the memory of a worker is gone when it ends; name a folder")
    has_maps = any(head.per_position for head in bundle.manifest.heads)
    if has_maps and options.maps != "none" and folder.local is None:
        raise UsageError(f"--out {folder.out}: maps are written to local or shared folders only; add --maps none")


def _read_files(bundle: Bundle) -> dict[str, bytes]:
    """Returns all files of a bundle by their paths, for machines that do not have its folder."""
    paths = [path for path in bundle.path.rglob("*") if path.is_file()]
    return {path.relative_to(bundle.path).as_posix(): path.read_bytes() for path in paths}


def _collect(options: PredictOptions, pool: WorkerPool, images: ImageNames) -> list[ShardRecord]:
    """Runs the pool to its end and returns the records in the order of the shards."""
    begin = time.monotonic()
    records: list[ShardRecord] = []
    progress = open_progress(options.quiet, images.count(quiet=options.quiet))
    try:
        for record in pool.run():
            records.append(record)
            progress.advance(record.rows)
    except BaseException:
        if not options.quiet and records:
            say(f"stopped after {len(records)} shards; continue with --resume")
        raise
    finally:
        progress.close()
    if not options.quiet:
        rows, errors = (sum(getattr(record, name) for record in records) for name in ("rows", "errors"))
        kept = sum(record.kept for record in records)
        speed = sum(record.rows for record in records if not record.kept) / (time.monotonic() - begin)
        earlier = f" {kept} of an earlier run," if kept else ""
        lost = f" {pool.lost} workers lost," if pool.lost else ""
        say(
            f"{rows} rows, {errors} errors, {len(records)} shards,{earlier}{lost} {speed:.1f} images/s -> "
            f"{options.out}{os.sep}"
        )
        if images.skipped.line:
            say(images.skipped.line)
    return sorted(records, key=lambda record: record.index)
