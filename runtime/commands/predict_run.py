"""The run of `probrt predict`: checks the options, chooses what runs, writes the rows, and prints the summary."""

from pathlib import Path

from probrt.runtime.bundle.bundle import Bundle, find_default_bundle
from probrt.runtime.commands.predict_display import RunDisplay
from probrt.runtime.commands.predict_images import ImageNames
from probrt.runtime.commands.predict_options import PredictOptions
from probrt.runtime.commands.predict_settings import describe_settings
from probrt.runtime.commands.progress import open_progress, say
from probrt.runtime.commands.stuck import end_when_stuck
from probrt.runtime.errors import UsageError
from probrt.runtime.hush import hush_libraries
from probrt.runtime.images.batches import block_size
from probrt.runtime.images.isolate import open_isolated_reader
from probrt.runtime.images.loader import open_reader
from probrt.runtime.predict.choose import Plan, PredictRequest, choose
from probrt.runtime.predict.draw_policy import AdaptiveDraws, FixedDraws, parse_tolerances
from probrt.runtime.predict.effective import choose_effective
from probrt.runtime.predict.predictor import Predictor
from probrt.runtime.rows.coverage import choose_thresholds
from probrt.runtime.rows.maps import FORMATS, MapFolder
from probrt.runtime.rows.novelty import choose_novelty
from probrt.runtime.rows.output import OutputRequest, RowOutput, StandardOutput, check_out, open_output, resolve_out
from probrt.runtime.rows.overlay import can_overlay
from probrt.runtime.rows.pipeline import RowMaker, Run, predict_files
from probrt.runtime.rows.review import choose_review
from probrt.runtime.rows.run_record import record_path
from probrt.runtime.rows.unfinished import UnfinishedRun
from probrt.runtime.rows.writers import RowsFile, choose_format


@end_when_stuck()
def run(options: PredictOptions) -> int:
    """Predicts images and returns the exit code: 1 if some rows are errors, else 0."""
    with hush_libraries():
        return _run(options)


def _run(options: PredictOptions) -> int:
    if options.continue_rows:
        from probrt.runtime.commands.predict_continue import continue_rows

        return continue_rows(options)
    if not options.images:
        raise UsageError("Missing argument 'IMAGES...': name images, or the rows of an earlier run with --continue")
    bundle = _open_bundle(options)
    if options.ray:
        return _run_on_ray(options, bundle)
    if options.workers or options.shard_size:
        raise UsageError("--workers and --shard-size: only with --ray, e.g. --ray local")
    manifest = bundle.manifest
    images = _find_images(options)  # first: an output that exists shall not hide a name that does not
    path = check_out(options.out, overwrite=options.overwrite, resume=options.resume)
    unfinished = path and UnfinishedRun(path)
    format = choose_format(options.out) if path else ""
    plan = _choose_plan(bundle, options, images)
    limits = parse_tolerances(options.tolerance, manifest) if options.tolerance else {}
    review = None if options.max_risk is None else choose_review(manifest, options.max_risk, plan.samples)
    novelty = choose_novelty(manifest, options.unknown)
    thresholds = choose_thresholds(manifest, options.coverage, options.conformal)
    predictor = Predictor(bundle, plan, options.batch_size, options.threads)
    predictor.load()  # before anything of the output is touched
    answering = AdaptiveDraws(predictor, limits) if limits else FixedDraws(predictor)
    maps = None
    if options.maps != "none":
        maps = MapFolder(options.map_folder, options.maps, options.overlay, unfinished.maps if unfinished else None)
    output: RowOutput
    if path is None:
        output = StandardOutput(images.names)
    else:
        output = open_output(
            OutputRequest(
                file=RowsFile(
                    path=path,
                    format=format,
                    manifest=manifest,
                    novelty=novelty,
                    review=review is not None,
                    maps=maps,
                ),
                settings=describe_settings(options, predictor, limits),
                images=options.images,
                names=images.names,
                block=block_size(manifest.input, predictor.batch_size, answering.regroups),
                threads=predictor.threads,
                overwrite=options.overwrite,
                resume=options.resume,
            )
        )
    if not options.quiet:
        there = f"; {output.rows} rows are there already" if output.rows else ""
        say(f"{bundle.label}: {plan.line} ({plan.why}){there}")
    display = RunDisplay(
        options,
        novelty.level if novelty else None,
        open_progress(options.quiet, images.count(quiet=options.quiet)),
        output.rows,
    )
    try:
        rows = RowMaker(
            bundle=bundle,
            plan=plan,
            thresholds=thresholds,
            maps=maps,
            novelty=novelty,
            review=review,
            first=output.rows,
        )
        tally = predict_files(
            Run(
                names=output.names,
                predictor=predictor,
                answering=answering,
                rows=rows,
                write=output.write,
                on_rows=display.add,
                open_reader=open_isolated_reader if options.isolate else open_reader,
            )
        )
        output.finish()
    except BaseException:
        display.stop()
        raise
    finally:
        output.close()
    display.finish(tally, images.skipped)
    return 1 if tally.errors or output.errors else 0


def _run_on_ray(options: PredictOptions, bundle: Bundle) -> int:
    from probrt.runtime.commands.predict_ray import find_ray_images, run_on_ray

    images = find_ray_images(options)
    return run_on_ray(options, bundle, images, _choose_plan(bundle, options, images))


def _open_bundle(options: PredictOptions) -> Bundle:
    """Opens the bundle; UsageError if it cannot have the maps that are asked for."""
    if options.maps not in FORMATS:
        raise UsageError(f"--maps {options.maps}: choose one of {', '.join(FORMATS)}")
    bundle = Bundle.open(options.bundle or find_default_bundle())
    heads = bundle.manifest.heads
    if options.maps == "nifti" and not any(head.per_position and len(head.outputs["mean"]) == 4 for head in heads):
        raise UsageError("--maps nifti: the bundle has no head per voxel; choose auto or npy")
    novelty = bundle.manifest.novelty
    can_draw = any(can_overlay(head) for head in heads) or (novelty is not None and novelty.map)
    if options.overlay and (options.maps == "none" or not can_draw):
        raise UsageError(
            "--overlay: needs maps of a 2-D class or Bernoulli head per position, or of novelty; leave it out"
        )
    return bundle


def _choose_plan(bundle: Bundle, options: PredictOptions, images: ImageNames) -> Plan:
    request = PredictRequest(
        samples=options.samples,
        seed=options.seed,
        variant=options.variant,
        engine=options.engine,
        device=options.device,
        precision=options.precision or "float32",
        few=images.few is not None,
    )
    if options.effective_samples is None:
        plan = choose(bundle, request)
    else:
        plan = choose_effective(bundle, request, options.effective_samples, options.precision)
    if options.tolerance and not plan.samples:
        raise UsageError(f"--tolerance {options.tolerance}: the posterior mean has no draws to add")
    return plan


def _find_images(options: PredictOptions) -> ImageNames:
    """Finds the images; what the run itself writes is none of them."""
    avoid = [options.map_folder]
    if (path := resolve_out(options.out)) is not None:
        avoid += [Path(options.out), path, record_path(path), UnfinishedRun(path).folder]
    return ImageNames(options.images, avoid, options.recursive)
