"""`probrt replay`: repeats rows of predictions from their bundle, seed and draws, and says which differ."""

from pathlib import Path
from typing import Annotated

import typer

from probrt.runtime.commands.progress import say
from probrt.runtime.errors import printable
from probrt.runtime.hush import hush_libraries
from probrt.runtime.monitor.replay import Replay, replay_rows
from probrt.runtime.rows.earlier import open_earlier_bundle, read_earlier_rows

MOST_LINES = 10


def replay(
    rows: Annotated[str, typer.Argument(help="Rows of `probrt predict`: .jsonl, .csv or .parquet.")],
    bundle: Annotated[str, typer.Option(help="Their bundle; default: the one they name, in artifacts/.")] = "",
    engine: Annotated[
        str, typer.Option(help="litert, onnxruntime, openvino or tensorflow; default: another than that of the rows.")
    ] = "auto",
    seed: Annotated[int | None, typer.Option(help="Seed of their draws; default: that of their run.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images per batch; default: by their size.")] = None,
) -> int:
    """Repeat rows from their bundle, seed and draws on another engine; exit code 1 if any row differs."""
    earlier = read_earlier_rows(Path(rows))
    opened = open_earlier_bundle(earlier, bundle)
    if earlier.warning:
        say(earlier.warning)
    settings = earlier.settings or {}
    with hush_libraries():
        result = replay_rows(
            opened,
            earlier.rows,
            seed=settings.get("seed") if seed is None else seed,
            precision=settings.get("precision", "float32"),
            engine=engine,
            batch_size=batch_size,
        )
    _print(result)
    wrong = len(result.differing) + len(result.faults)
    where = f" on {', '.join(result.engines)}" if result.engines else ""
    print(f"{result.rows} rows repeated{where}: {wrong or 'none'} differ{'s' if wrong == 1 else ''}")
    return 1 if wrong else 0


def _print(result: Replay) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if result.largest:
        table = Table(title="largest differences", title_justify="left")
        table.add_column("quantity", no_wrap=True)
        table.add_column("difference", justify="right", no_wrap=True)
        table.add_column("allowed", justify="right", no_wrap=True)
        table.add_column("file", overflow="fold")
        for name, largest in result.largest.items():
            style = "bold red" if largest.difference > largest.allowed else None
            figures = (f"{largest.difference:.2g}", f"{largest.allowed:.2g}")
            table.add_row(name, *figures, escape(printable(largest.file)), style=style)
        Console(highlight=False).print(table)
    reasons = dict(result.faults)
    for file, difference in result.differing.items():
        reasons[file] = (
            f"{difference.quantity} differs by {difference.difference:.2g}, allowed {difference.allowed:.2g}"
        )
    for file, reason in list(reasons.items())[:MOST_LINES]:
        print(f"{printable(file)}: {reason}")
    if len(reasons) > MOST_LINES:
        print(f"and {len(reasons) - MOST_LINES} more")
    if result.maps:
        say(f"not compared, for their values are files: {', '.join(sorted(result.maps))}")
