"""`probrt drift`: whether rows of predictions still look like a reference."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.commands.progress import say
from probrt.runtime.errors import UsageError, printable
from probrt.runtime.files import write_result
from probrt.runtime.monitor.drift import Comparison, compare_with_bundle, compare_with_rows
from probrt.runtime.monitor.row_values import RowValues, collect_values
from probrt.runtime.rows.readers import read_rows

LEVEL = 0.01
_FEW = 50


def drift(
    reference: Annotated[
        str,
        typer.Argument(
            help="Rows of `probrt predict` that stand for the usual data, or a bundle: its calibration images."
        ),
    ],
    new: Annotated[str, typer.Argument(help="Rows of `probrt predict` to compare with it.")],
    level: Annotated[
        float, typer.Option(help="Share of comparisons of unchanged data that may be called drift; exit code 1 for it.")
    ] = LEVEL,
    plot: Annotated[
        str, typer.Option(help="Save a picture (.png) of the numbers of both sides; needs matplotlib.")
    ] = "",
    out: Annotated[str, typer.Option(help="Save the comparisons as JSON.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing --plot or --out.")] = False,
) -> int:
    """Tell whether rows still look like a reference: novelty, shares of classes, uncertainties. Exit code 1 if not."""
    if not 0 < level < 1:
        raise UsageError(f"--level {level:g}: a share above 0 and below 1, e.g. {LEVEL}")
    for option, name in (("--plot", plot), ("--out", out)):
        if name and Path(name).exists() and not overwrite:
            raise UsageError(f"{option} {name} exists: choose another name, or replace it with --overwrite")
    if plot and Path(plot).suffix.lower() != ".png":
        raise UsageError(f"--plot {plot}: the name of a .png")
    values = collect_values(read_rows(Path(new)))
    if Path(reference).is_dir():
        bundle = Bundle.open(reference)
        comparisons = compare_with_bundle(bundle.manifest, bundle.label, values)
        size = bundle.manifest.novelty.images if bundle.manifest.novelty else 0
    else:
        usual = collect_values(read_rows(Path(reference)))
        comparisons = compare_with_rows(usual, values)
        size = usual.rows
        _note(usual, values)
    drifted = [comparison for comparison in comparisons if comparison.corrected <= level]
    _print_table(comparisons, level, size, values.rows)
    if min(size, values.rows) < _FEW:
        say(f"only {min(size, values.rows)} rows on one side: a small drift cannot be seen")
    if plot:
        from probrt.runtime.monitor.drift_plot import draw_drift

        write_result(Path(plot), draw_drift(comparisons, level))
    if out:
        write_result(Path(out), _encode(comparisons, level, size, values.rows, bool(drifted)))
    names = ", ".join(comparison.name for comparison in drifted)
    tests = "1 test" if len(comparisons) == 1 else f"{len(comparisons)} tests"
    print(f"drift at level {level:g} in {names}" if drifted else f"no drift at level {level:g} ({tests})")
    return 1 if drifted else 0


def _note(usual: RowValues, new: RowValues) -> None:
    """Says what the comparison leaves out, and what makes it doubtful."""
    if usual.draws != new.draws:
        say("the rows took other numbers of draws, which changes their uncertainties a little; predict both alike")
    maps = sorted(usual.maps | new.maps)
    if maps:
        say(f"not compared, for their values are files: {', '.join(maps)}")


def _print_table(comparisons: Sequence[Comparison], level: float, usual: int, new: int) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{new} new rows against {usual}", title_justify="left")
    table.add_column("quantity", overflow="fold")
    for column in ("reference", "new"):
        table.add_column(column, overflow="ellipsis", no_wrap=True)
    table.add_column("test", no_wrap=True)
    table.add_column("p", justify="right", no_wrap=True)
    for comparison in comparisons:
        table.add_row(
            *(escape(printable(text)) for text in (comparison.name, comparison.before, comparison.after)),
            f"{comparison.test} {comparison.statistic:.3g}",
            f"{comparison.corrected:.2g}",
            style="bold red" if comparison.corrected <= level else None,
        )
    Console(highlight=False).print(table)


def _encode(comparisons: Sequence[Comparison], level: float, usual: int, new: int, drifted: bool) -> bytes:
    tests = [
        {
            "name": comparison.name,
            "test": comparison.test,
            "reference": comparison.before,
            "new": comparison.after,
            "statistic": comparison.statistic,
            "p_value": comparison.p_value,
            "corrected_p_value": comparison.corrected,
        }
        for comparison in comparisons
    ]
    content = {"level": level, "drift": drifted, "reference_rows": usual, "new_rows": new, "tests": tests}
    return json.dumps(content, indent=2).encode("ascii") + b"\n"
