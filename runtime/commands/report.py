"""`probrt report`: one self-contained HTML page of a file of predictions."""

import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from probrt.runtime.commands.report_page import make_item, render_page
from probrt.runtime.commands.true_labels import read_true_labels
from probrt.runtime.errors import InputError, MissingError, UsageError
from probrt.runtime.files import write_result
from probrt.runtime.rows.readers import read_rows


def report(
    predictions: Annotated[str, typer.Argument(help="Rows of `probrt predict`: .jsonl, .csv or .parquet.")],
    out: Annotated[str, typer.Option(help="The page; default: beside the rows, .html.")] = "",
    labels: Annotated[str, typer.Option(help="CSV of true labels: file_name and a column per head.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing page.")] = False,
) -> int:
    """Make one HTML page of predictions: thumbnails by uncertainty, filters, histograms; no network."""
    try:
        import jinja2  # noqa: F401  (before any work is done)
    except ImportError:
        raise MissingError("probrt report needs jinja2: pip install 'probrt[report]'") from None
    source, page = Path(predictions), Path(out or Path(predictions).with_suffix(".html"))
    if page.exists() and not overwrite:
        raise UsageError(f"{page} exists: choose another name with --out, or replace it with --overwrite")
    truth = read_true_labels(Path(labels)) if labels else None
    # The sizes were checked when the images were predicted: a warning of a large one is no news.
    warnings.filterwarnings("ignore", message="Image size", module="PIL")
    labelled, files, items = 0, [], []
    for row in read_rows(source):
        true_labels = truth.of_file(row["file"]) if truth else {}
        labelled += bool(true_labels)
        files.append(row["file"])
        items.append(make_item(row, true_labels))
    if not items:
        raise InputError(f"{source}: holds no rows")
    if truth and not labelled:
        raise UsageError(
            f"--labels {labels}: none of its names ({truth.first_name}) is the end of a predicted file's name "
            f"({items[0]['file']})"
        )
    html = render_page(f"{source.name}: {len(items)} images", items)
    write_result(page, html.encode("utf-8", errors="backslashreplace"))
    with_labels = f", {labelled} with true labels{_describe_scores(items)}" if labels else ""
    print(f"{page}: {len(items)} images{with_labels}, {page.stat().st_size / 1e6:.1f} MB")
    if truth and (unused := truth.count_unused(files)):
        print(f"probrt: {labels}: {unused} of {len(truth.rows)} names label no predicted file", file=sys.stderr)
    return 0


def _describe_scores(items: list[dict[str, Any]]) -> str:
    """Returns the share of right answers of each head that can be right or wrong; of numbers, inside the interval."""
    hits: dict[tuple[str, str], list[bool]] = {}
    for item in items:
        for name, head in item["heads"].items():
            if "wrong" in head:
                meaning = "right" if isinstance(head.get("label"), str) else "inside the interval"
                hits.setdefault((name, meaning), []).append(not head["wrong"])
    return "".join(f", {name} {sum(of) / len(of):.1%} {meaning}" for (name, meaning), of in hits.items())
