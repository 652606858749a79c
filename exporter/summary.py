"""What `probrt export` prints: differences, files, and the next commands to paste."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from probrt.exporter.parity import Difference
from probrt.exporter.tf_serving import BATCHING, FOLDER
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import FileRecord, Selection


def differences_table(differences: Sequence[Difference]) -> Table:
    """One row per file or signature: its largest difference from the model under the same reading."""
    table = Table(title="largest difference from the model", title_justify="left")
    for column in ("file", "output", "difference", "allowed", "verdict"):
        table.add_column(column, justify="right" if column in ("difference", "allowed") else "left")
    for one in differences:
        verdict = "; ".join(one.faults) or "ok"
        if one.outputs:
            worst = max((*one.outputs, *one.task), key=lambda row: row.absolute / row.tolerance)
            table.add_row(one.file, worst.label, f"{worst.absolute:.1e}", f"{worst.tolerance:.1e}", verdict)
        else:
            table.add_row(one.file, "", "", "", verdict)
    return table


def files_table(bundle: Bundle, differences: Sequence[Difference]) -> Table:
    """What the bundle holds, one row per format, variant and precision: size, largest difference, time."""
    table = Table(title=f"{bundle.path}", title_justify="left")
    words = ("format", "variant", "precision")
    for column in (*words, "files", "draws", "MB", "largest difference", "ms/image"):
        table.add_column(column, justify="left" if column in words else "right")
    checked = {one.file.partition(" ")[0]: one for one in differences if " " not in one.file or "default" in one.file}
    kinds: dict[tuple[str, str, str], list[FileRecord]] = {}
    for file in bundle.manifest.files:
        kinds.setdefault((file.format, file.variant, file.precision), []).append(file)
    for (format, variant, precision), files in kinds.items():
        draws = sum(file.draws[1] for file in files if file.draws) or ("any" if variant == "sampled" else "")
        size = sum(file.bytes for file in files) / 1e6
        found = [checked[file.path] for file in files if file.path in checked]
        largest = max((row.absolute for one in found for row in one.outputs), default=0.0)
        spent = sum(one.milliseconds for one in found)
        row = (str(len(files)), str(draws), f"{size:.1f}", f"{largest:.1e}", f"{spent:.2f}")
        table.add_row(format, variant, precision, *row)
    return table


def bank_table(selection: Selection) -> Table:
    """How the bank's first draws compare with independent ones, on images not used for choosing."""
    verdict = "kept" if selection.kept else "no better than plain order, which was kept"
    table = Table(title=f"bank chosen from {selection.pool} draws: {verdict}", title_justify="left")
    for column in ("draws", "images", "error of the mean", "independent", "error of the spread", "independent"):
        table.add_column(column, justify="left" if column == "images" else "right")
    for one in selection.errors:
        values = (one.mean, one.independent_mean, one.spread, one.independent_spread)
        table.add_row(str(one.draws), one.images, *(f"{value:.3f}" for value in values))
    return table


def next_commands(bundle: Bundle) -> str:
    """The commands that a person would paste next."""
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
