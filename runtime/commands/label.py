"""`probrt label`: which images of a pool a person should label next."""

import contextlib
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from probrt.runtime.bundle.bundle import Bundle, find_default_bundle
from probrt.runtime.commands.predict_images import ImageNames
from probrt.runtime.commands.progress import open_progress, say
from probrt.runtime.commands.report_page import make_item, render_page
from probrt.runtime.errors import InputError, MissingError, UsageError
from probrt.runtime.files import write_result
from probrt.runtime.hush import hush_libraries
from probrt.runtime.label.choose import Chosen, choose_images, make_tasks
from probrt.runtime.label.pool import Pool, choose_head, read_pool

COLUMNS = ("rank", "file", "reason", "information", "group", "label", "probability", "epistemic", "novelty_p_value")


def label(
    pool: Annotated[list[str], typer.Argument(help="Unlabelled images: files, folders or patterns.")],
    bundle: Annotated[str, typer.Option(help="Bundle; default: the only model in artifacts/.")] = "",
    take: Annotated[int, typer.Option(min=1, help="How many images to choose.")] = 100,
    head: Annotated[str, typer.Option(help="The head to label; default: the only one of classes.")] = "",
    novel: Annotated[float, typer.Option(help="Share of them to choose by novelty instead, 0 to 1.")] = 0.0,
    draws: Annotated[int, typer.Option(min=2, help="Draws that the choice compares.")] = 64,
    seed: Annotated[int | None, typer.Option(help="Seed of the draws; default: the bundle's.")] = None,
    out: Annotated[str, typer.Option(help="The table, a .csv.")] = "to_label.csv",
    page: Annotated[str, typer.Option(help="Also an HTML page of the chosen images; needs jinja2.")] = "",
    label_studio: Annotated[str, typer.Option(help="Also tasks for an import into Label Studio, a .json.")] = "",
    image_prefix: Annotated[
        str, typer.Option(help="What makes an address of a file's name for Label Studio.")
    ] = "/data/local-files/?d=",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but the summary.")] = False,
) -> int:
    """Choose the images of a pool to label next: those whose labels together tell most (BatchBALD)."""
    if not 0 <= novel <= 1:
        raise UsageError(f"--novel {novel:g}: a share from 0 to 1")
    _check_outputs(((out, "--out"), (page, "--page"), (label_studio, "--label-studio")), overwrite)
    if page:
        try:
            import jinja2  # noqa: F401  (before any work is done)
        except ImportError:
            raise MissingError("--page needs jinja2: pip install 'probrt[report]'") from None
    opened = Bundle.open(bundle or find_default_bundle())
    chosen_head = choose_head(opened, head)
    if novel and opened.manifest.novelty is None:
        raise UsageError(f"--novel {novel:g}: the bundle has no novelty; train and export it again, or leave it out")
    names = ImageNames(pool, [], True)
    progress = open_progress(quiet, names.count(quiet=quiet))
    count = round(novel * take)
    with hush_libraries(), contextlib.closing(progress):
        read = read_pool(
            opened, chosen_head, names.names, draws=draws, seed=seed, novel=count, on_images=progress.advance
        )
    if not read.informative:
        raise InputError(f"{', '.join(pool)}: none of its {read.images} images can be read")
    chosen = choose_images(read, take, count)
    write_result(Path(out), _make_table(chosen, chosen_head.name))
    if page:
        items = [make_item(item.row, {}) for item in chosen]
        write_result(
            Path(page), render_page(f"{len(chosen)} images to label", items).encode("utf-8", errors="backslashreplace")
        )
    if label_studio:
        tasks = make_tasks(chosen, chosen_head.name, image_prefix, opened.label)
        write_result(Path(label_studio), json.dumps(tasks, indent=1).encode("ascii") + b"\n")
    _print_summary(read, chosen, out, quiet)
    return 1 if read.faults else 0


def _check_outputs(names: Sequence[tuple[str, str]], overwrite: bool) -> None:
    for name, option in names:
        if name and Path(name).exists() and not overwrite:
            raise UsageError(f"{option} {name} exists: choose another name, or replace it with --overwrite")
    if not names[0][0].lower().endswith(".csv"):
        raise UsageError(f"--out {names[0][0]}: the name of a .csv")


def _make_table(chosen: Sequence[Chosen], head: str) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(COLUMNS)
    for rank, item in enumerate(chosen, 1):
        answer = item.row["heads"][head]
        labels = answer["label"] if isinstance(answer["label"], str) else " ".join(answer["label"])
        told = None if item.information is None else f"{item.information:.6g}"
        p_value = item.row["novelty"]["p_value"] if "novelty" in item.row else None
        probability = answer.get("probability", answer["mean"])
        writer.writerow(
            [rank, item.row["file"], item.reason, told, item.group, labels, probability, answer["epistemic"], p_value]
        )
    return stream.getvalue().encode("utf-8", errors="backslashreplace")


def _print_summary(pool: Pool, chosen: Sequence[Chosen], out: str, quiet: bool) -> None:
    novel = sum(item.reason == "novelty" for item in chosen)
    if pool.faults and not quiet:
        say(f"{pool.faults} of {pool.images} images cannot be read and were left out")
    print(f"{out}: {len(chosen)} of {pool.images} images to label, {novel} of them by novelty")
