"""`probrt report`: one self-contained HTML page out of a file of predictions."""

import base64
import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from probrt.runtime.errors import InputError, MissingError, UsageError, one_line
from probrt.runtime.rows.readers import read_rows
from probrt.runtime.tables import UnreadableTable, open_csv

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SIDE = 72
QUANTITIES = ("epistemic", "total", "aleatoric", "probability")
Truth = Mapping[tuple[str, ...], Mapping[str, str]]
PAGE = Path(__file__).with_name("report.html")


def report(
    predictions: Annotated[str, typer.Argument(help="Rows of `probrt predict`: .jsonl, .csv or .parquet.")],
    out: Annotated[str, typer.Option(help="The page; default: beside the rows, .html.")] = "",
    labels: Annotated[str, typer.Option(help="CSV of true labels: file_name and a column per head.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing page.")] = False,
) -> int:
    """Make one HTML page of predictions: thumbnails by uncertainty, filters, histograms; no network."""
    try:
        import jinja2
    except ImportError:
        raise MissingError("probrt report needs jinja2: pip install 'probrt[report]'") from None
    source, target = Path(predictions), Path(out or Path(predictions).with_suffix(".html"))
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists: choose another name with --out, or replace it with --overwrite")
    truth = true_labels(Path(labels)) if labels else {}
    # The pixels were measured when they were predicted; a thumbnail of a large file is no news.
    warnings.filterwarnings("ignore", message="Image size", module="PIL")
    labelled, items = 0, []
    for row in read_rows(source):
        known = labels_of(row["file"], truth)
        labelled += bool(known)
        items.append(item(row, known))
    if not items:
        raise InputError(f"{source}: holds no rows")
    if labels and not labelled:
        raise UsageError(
            f"--labels {labels}: none of its names ({Path(*next(iter(truth)))}) is the end of a predicted file's name "
            f"({items[0]['file']})"
        )
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(PAGE.read_text("utf-8")).render(
        title=f"{source.name}: {len(items)} images", data=embedded({"items": items, "heads": heads(items)})
    )
    target.write_text(page, "utf-8", errors="backslashreplace")
    said = f", {labelled} with true labels" if labels else ""
    print(f"{target}: {len(items)} images{said}, {target.stat().st_size / 1e6:.1f} MB")
    return 0


def labels_of(file: str, truth: Truth) -> Mapping[str, str]:
    """The true labels under the longest end of a file's name, whole folders and all, that has some."""
    parts = Path(file).parts
    ends = (parts[first:] for first in range(len(parts)))
    return next((truth[end] for end in ends if end in truth), {})


def item(row: dict[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    """What the page needs of one row: numbers per head, small pictures, the true labels if known."""
    entry: dict[str, Any] = {"file": one_line(ValueError(row["file"])), "error": row.get("error"), "heads": {}}
    entry["image"] = thumbnail(row["file"])
    if "review" in row:
        entry["review"] = row["review"]
    for name, values in (row["heads"] or {}).items():
        head = {key: value for key, value in values.items() if key not in ("mean", *QUANTITIES)}
        if is_map(values):
            pictures = {key: value for key, value in values.items() if is_picture(value)}
            entry["heads"][name] = {"maps": {key: thumbnail(value) for key, value in pictures.items()}}
            continue
        head |= {key: average(values[key]) for key in QUANTITIES if key in values}
        head["mean"] = values["mean"]
        if known.get(name):  # an empty cell is a label that is missing
            head["truth"] = known[name]
            if (wrong := is_wrong(values, known[name])) is not None:
                head["wrong"] = wrong
        entry["heads"][name] = head
    return entry


def is_wrong(values: Mapping[str, Any], truth: str) -> bool | None:
    """Whether the likeliest label is not the true one, or a number lies outside its interval; None if unknown."""
    if isinstance(values.get("label"), str):
        return bool(truth != values["label"])
    ends = values.get("interval")
    if not isinstance(ends, list) or len(ends) != 2 or not all(isinstance(end, (int, float)) for end in ends):
        return None
    try:
        return not float(ends[0]) <= float(truth) <= float(ends[1])
    except ValueError:  # no number: the target is missing
        return None


def is_map(values: Mapping[str, Any]) -> bool:
    """Whether a head's values are paths of files."""
    first = values["mean"][0] if isinstance(values["mean"], list) and values["mean"] else values["mean"]
    return isinstance(first, str)


def is_picture(value: Any) -> bool:
    return isinstance(value, str) and value.endswith((".png", ".npy", ".nii.gz"))


def average(value: Any) -> float | None:
    """A quantity as one number: lists by their mean."""
    if isinstance(value, list):
        parts = [part for part in (average(one) for one in value) if part is not None]
        return sum(parts) / len(parts) if parts else None
    return float(value) if isinstance(value, (int, float)) else None


def heads(items: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Each head's quantities that the page can sort by; maps have none."""
    found: dict[str, list[str]] = {}
    for entry in items:
        for name, values in entry["heads"].items():
            found.setdefault(name, [key for key in QUANTITIES if values.get(key) is not None])
    return found


def thumbnail(path: str) -> str:
    """A picture as a data URI of at most 72 pixels a side; empty if it cannot be shown.

    Of an array or a volume the middle slice and first channel, from its own lowest to its highest value.
    """
    from PIL import Image

    from probrt.runtime.errors import ImageError
    from probrt.runtime.images.decode import FORMATS, MAX_PIXELS, NUMPY_MAGIC, read_bytes
    from probrt.runtime.images.volumes import is_volume

    try:
        data = read_bytes(path)
        if data.startswith(NUMPY_MAGIC) or is_volume(data):
            image = Image.fromarray(middle(data))
        else:
            with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    return ""
                opened.draft("RGB", (SIDE * 2, SIDE * 2))
                image = opened.convert("RGBA" if opened.mode in ("RGBA", "LA", "PA", "P") else "RGB")
        image.thumbnail((SIDE, SIDE))
        stream = io.BytesIO()
        image.save(stream, "WEBP", quality=70, method=2)
    except ImageError:
        return ""
    except Exception:  # what cannot be decoded has its reason in the row; here it is only not shown
        return ""
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def middle(data: bytes) -> "npt.NDArray[np.uint8]":
    """The middle slice of a .npy array or a NIfTI volume, uint8 [height, width]; a last side up to 4 is channels."""
    import numpy as np

    from probrt.runtime.images.volumes import is_volume, read_volume

    values = read_volume(data)[0] if is_volume(data) else np.load(io.BytesIO(data), allow_pickle=False)
    if values.ndim == 4 or (values.ndim == 3 and values.shape[-1] <= 4):
        values = values[..., 0]
    if values.ndim == 3:
        values = values[len(values) // 2]
    values = values - values.min()
    return np.asarray(np.rint(values * (255.0 / (float(values.max()) or 1.0))), np.uint8)


def true_labels(path: Path) -> Truth:
    """True labels by the parts of a file's name out of a CSV with a column file or file_name and a column per head."""
    try:
        with open_csv(path, strict=False) as table:
            column = next((name for name in ("file", "file_name") if name in table.columns), None)
            if column is None:
                raise UsageError(f"--labels {path}: needs a column file or file_name and a column per head")
            found = {Path(row[column]).parts: row for _, row in table.rows if row[column]}
    except FileNotFoundError:
        raise UsageError(f"--labels {path}: no such file") from None
    except UnreadableTable as error:
        raise UsageError(f"--labels {path}: not readable as CSV: {error}") from None
    if not found:
        raise UsageError(f"--labels {path}: names no file")
    return found


def embedded(data: Any) -> Any:
    """JSON that cannot end the script element that holds it."""
    import markupsafe

    text = json.dumps(data, separators=(",", ":"))
    return markupsafe.Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
