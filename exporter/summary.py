"""What `probrt export` prints: tables of differences, files and the bank, and the next commands to paste."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rich.table import Table

from probrt.exporter.parity import Difference
from probrt.exporter.tf_serving import BATCHING, FOLDER
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import EffectiveDraws, FileRecord, Selection


def make_differences_table(differences: Sequence[Difference]) -> Table:
    """Returns one row per file or signature: the output that differs most from the model, for what it may."""
    table = _make_table("largest difference from the model", ("file", "output"), ("difference", "allowed"))
    table.add_column("verdict")
    for difference in differences:
        verdict = "differs" if difference.faults else "ok"
        if difference.outputs:
            records = (*difference.outputs, *difference.task)
            worst = max(records, key=lambda record: record.absolute / record.tolerance)
            numbers = (f"{worst.absolute:.1e}", f"{worst.tolerance:.1e}")
            table.add_row(difference.label, worst.label, *numbers, verdict)
        else:
            table.add_row(difference.label, "", "", "", verdict)
    return table


def list_faults(differences: Sequence[Difference]) -> list[str]:
    """Returns a line for each fault of each file."""
    return [f"{difference.label}: {fault}" for difference in differences for fault in difference.faults]


def make_files_table(bundle: Bundle, differences: Sequence[Difference]) -> Table:
    """Returns one row per format, variant and precision of the bundle: size, largest difference, time."""
    columns = ("files", "draws", "MB", "difference", "ms/image")
    table = _make_table(str(bundle.path), ("format", "variant", "precision"), columns)
    # Of the SavedModel's signatures, the default one stands for all.
    by_file = {
        difference.file: difference for difference in differences if difference.signature in ("", "serving_default")
    }
    groups: dict[tuple[str, str, str], list[FileRecord]] = {}
    for file in bundle.manifest.files:
        groups.setdefault((file.format, file.variant, file.precision), []).append(file)
    for (format, variant, precision), files in groups.items():
        draws = sum(file.draws[1] for file in files if file.draws) or ("any" if variant == "sampled" else "")
        size = sum(file.bytes for file in files) / 1e6
        compared = [by_file[file.path] for file in files if file.path in by_file]
        largest = max((record.absolute for difference in compared for record in difference.outputs), default=0.0)
        milliseconds = sum(difference.milliseconds for difference in compared)
        numbers = (str(len(files)), str(draws), f"{size:.1f}", f"{largest:.1e}", f"{milliseconds:.2f}")
        table.add_row(format, variant, precision, *numbers)
    return table


def make_bank_table(selection: Selection) -> Table:
    """Returns how the bank's first draws compare with independent ones, on images not used for choosing."""
    verdict = "kept" if selection.kept else "no better than plain order, which was kept"
    table = _make_table(
        f"bank chosen from {selection.pool} draws: {verdict}\nerrors, beside those of independent draws",
        ("images",),
        ("draws", "mean", "independent", "spread", "independent"),
    )
    for error in selection.errors:
        values = (error.mean, error.independent_mean, error.spread, error.independent_spread)
        table.add_row(error.images, str(error.draws), *(f"{value:.3f}" for value in values))
    return table


def _make_table(title: str, texts: Sequence[str], numbers: Sequence[str]) -> Table:
    """Returns a table without lines, which leaves room for the columns of texts and of numbers in 80 characters."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in texts:
        table.add_column(column, overflow="fold")
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def make_worth_table(effective: Sequence[EffectiveDraws]) -> Table:
    """Returns what the bank's first draws are worth, by precision, on images that it was not chosen on."""
    table = Table(title="what the draws are worth, in independent ones", title_justify="left")
    for column in ("precision", "draws", "like", "error of the mean", "shifted", "error of the spread", "shifted"):
        table.add_column(column, justify="left" if column == "precision" else "right")
    for record in effective:
        errors = (*record.mean, *record.spread)
        table.add_row(
            record.precision, str(record.draws), f"{record.effective:.3g}", *(f"{value:.3f}" for value in errors)
        )
    return table


def format_next_commands(bundle: Bundle) -> str:
    """Returns the commands to paste next: predict, and serve if there is a SavedModel."""
    home = bundle.path.parent
    samples = bundle.manifest.posterior.samples if bundle.manifest.posterior else None
    predict = f"probrt predict {f'--samples {samples} ' if samples else ''}--bundle {shlex.quote(str(home))} imgs/"
    if not bundle.files("savedmodel"):
        return f"next:\n  {predict}"
    mount = shlex.quote(f"{home.absolute()}:/models/{home.name}")
    settings = f"/models/{home.name}/{bundle.path.name}/{FOLDER}/{BATCHING}"
    serve = (
        f"docker run -p 8500:8500 -p 8501:8501 -v {mount} -e MODEL_NAME={home.name} "
        f"tensorflow/serving --enable_batching --batching_parameters_file={settings}"
    )
    return f"next:\n  {predict}\n  {serve}"
