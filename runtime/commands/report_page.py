"""The page of `probrt report`: what it holds of each row, and how that gets into the HTML."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probrt.runtime.bundle.manifest import NOVELTY, NOVELTY_MAP, NOVELTY_QUANTITIES
from probrt.runtime.commands.thumbnails import make_thumbnail
from probrt.runtime.commands.true_labels import is_wrong
from probrt.runtime.errors import printable
from probrt.runtime.rows.novelty import is_unknown
from probrt.runtime.rows.numbers import Row

TEMPLATE = Path(__file__).with_name("report.html")
QUANTITIES = ("epistemic", "total", "aleatoric", "probability")


def make_item(row: Row, true_labels: Mapping[str, str]) -> dict[str, Any]:
    """What the page needs of one row: numbers per head, small pictures, and the true labels by head."""
    item: dict[str, Any] = {"file": printable(row["file"]), "error": row.get("error"), "heads": {}}
    item["image"] = make_thumbnail(row["file"])
    if "review" in row:
        item["review"] = row["review"]
    for name, values in (row["heads"] or {}).items():
        item["heads"][name] = _map_item(values) if _is_map(values) else _head_item(values, true_labels.get(name, ""))
    if row.get(NOVELTY):
        item["unknown"] = is_unknown(row)
        item["heads"][NOVELTY] = {name: row[NOVELTY].get(name) for name in NOVELTY_QUANTITIES}
        if NOVELTY_MAP in row[NOVELTY]:
            item["heads"][NOVELTY] |= _map_item(row[NOVELTY])
    return item


def render_page(title: str, items: list[dict[str, Any]]) -> str:
    """The HTML of the page."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    data = _embed_json({"items": items, "heads": _sortable_quantities(items)})
    return environment.from_string(TEMPLATE.read_text("utf-8")).render(title=title, data=data)


def _is_map(values: Mapping[str, Any]) -> bool:
    """Whether the values of a head are paths of files."""
    first = values["mean"][0] if isinstance(values["mean"], list) and values["mean"] else values["mean"]
    return isinstance(first, str)


def _map_item(values: Mapping[str, Any]) -> dict[str, Any]:
    suffixes = (".png", ".npy", ".nii.gz")
    paths = {key: value for key, value in values.items() if isinstance(value, str) and value.endswith(suffixes)}
    return {"maps": {key: make_thumbnail(path) for key, path in paths.items()}}


def _head_item(values: Mapping[str, Any], true_label: str) -> dict[str, Any]:
    """The numbers of a head; an empty true label is one that is missing."""
    head = {key: value for key, value in values.items() if key not in ("mean", *QUANTITIES)}
    head |= {key: _average(values[key]) for key in QUANTITIES if key in values}
    head["mean"] = values["mean"]
    if true_label:
        head["truth"] = true_label
        if (wrong := is_wrong(values, true_label)) is not None:
            head["wrong"] = wrong
    return head


def _average(value: Any) -> float | None:
    """A quantity as one number: the mean of a list, of its parts that have one."""
    if isinstance(value, list):
        parts = [average for average in map(_average, value) if average is not None]
        return sum(parts) / len(parts) if parts else None
    return float(value) if isinstance(value, (int, float)) else None


def _sortable_quantities(items: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The quantities of each head that the page can sort by; maps have none."""
    quantities: dict[str, list[str]] = {}
    for item in items:
        for name, values in item["heads"].items():
            sortable = NOVELTY_QUANTITIES if name == NOVELTY else QUANTITIES
            quantities.setdefault(name, [key for key in sortable if values.get(key) is not None])
    return quantities


def _embed_json(data: Any) -> Any:
    """JSON that cannot end the script element that holds it."""
    import markupsafe

    text = json.dumps(data, separators=(",", ":"))
    return markupsafe.Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
