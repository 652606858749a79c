"""What `probrt export` prints: tables of differences, files and the bank, and the next commands to paste."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from probrt.exporter.parity import Difference
from probrt.exporter.tf_serving import BATCHING, FOLDER
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import FileRecord, Selection


def make_differences_table(differences: Sequence[Difference]) -> Table:
    """Returns one row per file or signature: the output that differs most from the model, for what it may."""
    table = Table(title="largest difference from the model", title_justify="left")
    for column in ("file", "output", "difference", "allowed", "verdict"):
        table.add_column(column, justify="right" if column in ("difference", "allowed") else "left")
    for difference in differences:
        verdict = "; ".join(difference.faults) or "ok"
        if difference.outputs:
            records = (*difference.outputs, *difference.task)
            worst = max(records, key=lambda record: record.absolute / record.tolerance)
            numbers = (f"{worst.absolute:.1e}", f"{worst.tolerance:.1e}")
            table.add_row(difference.label, worst.label, *numbers, verdict)
        else:
            table.add_row(difference.label, "", "", "", verdict)
    return table


def make_files_table(bundle: Bundle, differences: Sequence[Difference]) -> Table:
    """Returns one row per format, variant and precision of the bundle: size, largest difference, time."""
    table = Table(title=f"{bundle.path}", title_justify="left")
    text_columns = ("format", "variant", "precision")
    for column in (*text_columns, "files", "draws", "MB", "largest difference", "ms/image"):
        table.add_column(column, justify="left" if column in text_columns else "right")
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
    table = Table(title=f"bank chosen from {selection.pool} draws: {verdict}", title_justify="left")
    for column in ("draws", "images", "error of the mean", "independent", "error of the spread", "independent"):
        table.add_column(column, justify="left" if column == "images" else "right")
    for error in selection.errors:
        values = (error.mean, error.independent_mean, error.spread, error.independent_spread)
        table.add_row(str(error.draws), error.images, *(f"{value:.3f}" for value in values))
    return table


def format_next_commands(bundle: Bundle) -> str:
    """Returns the commands to paste next: predict, and serve if there is a SavedModel."""
    home = bundle.path.parent
    samples = bundle.manifest.posterior.samples if bundle.manifest.posterior else None
    predict = f"probrt predict {f'--samples {samples} ' if samples else ''}--bundle {home} imgs/"
    if not bundle.files("savedmodel"):
        return f"next:\n  {predict}"
    settings = f"/models/{home.name}/{bundle.path.name}/{FOLDER}/{BATCHING}"
    serve = (
        f"docker run -p 8500:8500 -p 8501:8501 -v {home.absolute()}:/models/{home.name} -e MODEL_NAME={home.name} "
        f"tensorflow/serving --enable_batching --batching_parameters_file={settings}"
    )
    return f"next:\n  {predict}\n  {serve}"
