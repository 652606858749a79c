"""`probrt inspect`: prints what a bundle holds."""

from collections.abc import Iterator
from typing import Annotated

import typer

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.float_layers import list_float_layers
from probrt.runtime.bundle.manifest import Calibration, HeadRecord, Manifest, PosteriorRecord
from probrt.runtime.calibration.conformal import list_coverages
from probrt.runtime.images.decode import format_shape

UNCERTAINTIES = {"class": "entropies in nats", "binary": "entropies in nats", "real": "variances"}
LABELS = 12


def inspect(
    bundle: Annotated[str, typer.Argument(help="A version folder, or a model folder (newest version).")],
) -> int:
    """Print what a bundle holds: input, heads, files, draws, calibration, parity."""
    for line in describe_bundle(Bundle.open(bundle)):
        # Labels and units are free text: no control sequence of theirs reaches the terminal.
        print("".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line))
    return 0


def describe_bundle(bundle: Bundle) -> Iterator[str]:
    """Yields the manifest as lines for a person."""
    manifest = bundle.manifest
    input = manifest.input
    yield f"{bundle.label}  (probrt {manifest.probrt}, {bundle.path})"
    bounds = f", {input.range[0]:g} to {input.range[1]:g}" if input.range else ""
    unit = f" {input.unit}" if input.unit else ""
    yield f"input    {format_shape(input.shape)} {input.colour}{bounds}{unit}, resize {input.resize}"
    for head in manifest.heads:
        yield f"head     {_describe_head(head)}"
    posterior = manifest.posterior
    if posterior is None:
        yield "draws    none: one pass, no epistemic uncertainty"
    else:
        bank = f"bank of {len(posterior.order)} in chunks of {posterior.chunk}" if posterior.order else "no bank"
        yield f"draws    default {posterior.samples}, at most {posterior.max_samples}, seed {posterior.seed}, {bank}"
        if posterior.tuning:
            yield f"tuned    {posterior.tuning.summary}"
        yield from _describe_worth(posterior)
    yield f"novelty  {_describe_novelty(manifest)}"
    for calibration in manifest.calibration:
        yield f"calib    {_describe_calibration(calibration)}"
    differences = _largest_differences(manifest)
    for file in manifest.files:
        draws = f"draws {file.draws[0]}-{sum(file.draws) - 1}" if file.draws else ""
        parity = f"differs by {differences[file.path]:.1e}" if file.path in differences else ""
        graph = f"{file.format:10} {file.variant:8} {file.precision:8}"
        yield f"file     {file.path:44} {file.bytes:>10}  {graph} {draws:12} {parity}".rstrip()
    for line in list_float_layers(manifest):
        yield f"int8     {line}"
    for document in manifest.documents:
        yield f"file     {document.path:44} {document.bytes:>10}  bill of materials"


def _describe_head(head: HeadRecord) -> str:
    more = f", ... ({len(head.labels)})" if len(head.labels) > LABELS else ""
    positions = "per position, " if head.per_position else ""
    unit = f" [{head.unit}]" if head.unit else ""
    labels = ", ".join(head.labels[:LABELS]) + more
    return f"{head.name}{unit}: {head.likelihood}, {positions}{UNCERTAINTIES[head.kind]}; {labels}"


def _describe_worth(posterior: PosteriorRecord) -> Iterator[str]:
    """Yields a line per precision: what the first draws of the bank are worth, in independent ones."""
    for precision in dict.fromkeys(record.precision for record in posterior.effective):
        records = [record for record in posterior.effective if record.precision == precision]
        worth = ", ".join(f"{record.draws} like {record.effective:.3g}" for record in records)
        yield f"worth    in {precision}: {worth} independent draws"


def _describe_novelty(manifest: Manifest) -> str:
    novelty = manifest.novelty
    if novelty is None:
        reason = manifest.provenance.training.get("novelty")
        return reason if isinstance(reason, str) else "none"
    return (
        f"{novelty.method}: {', '.join(novelty.stages)} of {novelty.fitted} training images; "
        f"p-values from {novelty.images} images, {1 / (novelty.images + 1):.2g} at least"
    )


def _describe_calibration(calibration: Calibration) -> str:
    coverages = ", ".join(f"{coverage:g}" for coverage in list_coverages(calibration.conformal))
    methods = ", ".join(dict.fromkeys(record.method for record in calibration.conformal))
    sets = f", {methods} at {coverages}" if coverages else ""
    risk = "".join(f", errs {point.risk:.2%} of {point.kept:.0%} kept" for point in calibration.risk[-1:])
    return f"{calibration.head}: temperature {calibration.temperature:.4g}, scale {calibration.scale:.4g}{sets}{risk}"


def _largest_differences(manifest: Manifest) -> dict[str, float]:
    """The largest absolute difference between the outputs of each file and those of the model."""
    largest: dict[str, float] = {}
    for parity in manifest.parity:
        if parity.metric:  # a metric of the task is no difference between outputs
            continue
        largest[parity.file] = max(largest.get(parity.file, 0.0), parity.absolute)
    return largest
