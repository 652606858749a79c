"""What `probrt export` prints: differences, files, and the next commands to paste."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.table import Table

from probrt.exporter.parity import Difference
from probrt.exporter.serving import BATCHING, FOLDER
from probrt.runtime.bundle import Bundle
from probrt.runtime.manifest import Selection


def differences_table(differences: Sequence[Difference]) -> Table:
    """One row per file or signature: its largest difference from the model under the same reading."""
    table = Table(title="largest difference from the model", title_justify="left")
    for column in ("file", "output", "difference", "allowed", "verdict"):
        table.add_column(column, justify="right" if column in ("difference", "allowed") else "left")
    for one in differences:
        verdict = "; ".join(one.faults) or "ok"
        if one.outputs:
            worst = max(one.outputs, key=lambda row: row.absolute / row.tolerance)
            output = worst.output.partition(":")[2] or worst.output
            table.add_row(one.file, output, f"{worst.absolute:.1e}", f"{worst.tolerance:.1e}", verdict)
        else:
            table.add_row(one.file, "", "", "", verdict)
    return table


def files_table(bundle: Bundle) -> Table:
    """What the bundle holds, one row per format and variant."""
    table = Table(title=f"{bundle.path}", title_justify="left")
    for column in ("format", "variant", "precision", "files", "draws", "MB"):
        table.add_column(column, justify="left" if column in ("format", "variant", "precision") else "right")
    kinds = Counter((file.format, file.variant, file.precision) for file in bundle.manifest.files)
    for (format, variant, precision), count in kinds.items():
        files = [
            file
            for file in bundle.manifest.files
            if (file.format, file.variant, file.precision) == (format, variant, precision)
        ]
        draws = sum(file.draws[1] for file in files if file.draws) or ("any" if variant == "sampled" else "")
        size = sum(file.bytes for file in files) / 1e6
        table.add_row(format, variant, precision, str(count), str(draws), f"{size:.1f}")
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
