"""Chooses a head for each column of a table, with the likelihood that the column's values call for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from probrt.runtime.errors import DataError
from probrt.runtime.images.inputs import is_image_name
from probrt.trainer.data.masks import read_mask
from probrt.trainer.data.table import FILE
from probrt.trainer.heads.formulas import parse_number
from probrt.trainer.propose.source import Source

GROUPS = frozenset(("group", "patient", "patient_id", "subject", "subject_id", "person", "site", "video", "scene"))
_LABEL_WORDS = frozenset(("label", "class", "category", "digit", "kind", "type", "species", "target", "y"))
_COUNT_WORDS = frozenset(("count", "counts", "num", "number", "n"))
_BOX_SIDES = ("x_min", "y_min", "x_max", "y_max")
_MOST_CLASSES = 1000
_LOOKED_AT = 64
_DECIMAL_COMMA = re.compile(r"[-+]?\d+(,\d+)?")


@dataclass(frozen=True)
class HeadChoice:
    """A head of the config, without what depends on the other heads, and the reason for its likelihood."""

    settings: dict[str, Any]
    reason: str

    @property
    def name(self) -> str:
        return str(self.settings["name"])

    @property
    def likelihood(self) -> str:
        return str(self.settings["likelihood"])

    @property
    def per_position(self) -> bool:
        return bool(self.settings.get("per_position"))


def choose_heads(source: Source, split: str, group: str) -> tuple[list[HeadChoice], list[str]]:
    """Returns a head for each column that can be a target, and notes on the columns that are left out.

    Raises DataError if no column can be a target.
    """
    heads: list[HeadChoice] = []
    notes: list[str] = []
    columns = [name for name in source.columns if name not in (FILE, split, group)]
    boxes = [name[: -len("_x_min")] for name in columns if name.endswith("_x_min")]
    for stem in boxes:
        sides = [f"{stem}_{side}" for side in _BOX_SIDES]
        if all(side in columns for side in sides):
            columns = [name for name in columns if name not in sides]
            _add_box(source, stem, sides, heads, notes)
    for column in columns:
        cells = [cell for cell in source.cells(column) if cell]
        if not cells:
            notes.append(f"column {column!r} is left out: it is empty")
        elif all(is_image_name(cell) for cell in cells):
            heads.append(_choose_mask(source, column, cells))
        else:
            choice = choose_values(column, cells)
            if isinstance(choice, str):
                notes.append(f"column {column!r} is left out: {choice}")
            else:
                heads.append(choice)
    if not heads:
        raise DataError(f"{source.root}: no column can be a target{'; ' * bool(notes)}{'; '.join(notes)}")
    return _name_heads(heads), notes


def choose_values(column: str, cells: Sequence[str]) -> HeadChoice | str:
    """Chooses the head of a column of text or numbers by its values; returns the reason if it can be no target."""
    words = set(re.split(r"[^a-z]+", column.lower()))
    counts = Counter(cells)
    if len(counts) == 1:
        return f"every value is {cells[0]}"
    try:
        values = np.array([parse_number(cell) for cell in cells])
    except ValueError:
        values = np.array([])
    if not len(values):
        commas = [cell for cell in counts if "," in cell]
        if commas and all(_DECIMAL_COMMA.fullmatch(cell) for cell in counts):
            return f"its numbers have commas, such as {commas[0]!r}; write them with a decimal point"
        if len(counts) > _MOST_CLASSES or 2 * len(counts) > max(len(cells), 8):
            return f"{len(counts)} different words in {len(cells)} rows are no classes"
        return _classes(column, sorted(counts), f"{len(counts)} different words")
    values = values[np.isfinite(values)]  # reading the table names the rows of the others
    if not len(values):
        return "every number is infinite"
    whole = bool((values % 1 == 0).all())
    if whole and set(values.tolist()) == {0.0, 1.0}:
        return HeadChoice({"name": column, "likelihood": "bernoulli"}, "0 and 1: no and yes")
    if whole and len(counts) == len(cells) and len(cells) > 8 and np.ptp(values) == len(cells) - 1:
        return "its values number the rows"
    if whole and values.min() >= 0 and values.max() <= 1000:
        shares = np.array(list(counts.values())) / len(cells)
        evenness = float(-(shares * np.log(shares)).sum() / np.log(len(counts)))
        few = 4 * len(counts) <= len(cells) and np.ptp(values) + 1 == len(counts) <= 20
        labels = bool(words & _LABEL_WORDS) or (few and evenness > 0.95 and not words & _COUNT_WORDS)
        if labels and len(counts) <= _MOST_CLASSES:
            names = [str(int(value)) for value in sorted(set(values.tolist()))]
            return _classes(column, names, f"{len(names)} whole numbers, used as labels (counts: poisson)")
        spread = values.var() > 1.5 * max(values.mean(), 0.1)
        likelihood = "negative_binomial" if spread else "poisson"
        reason = "variance above the mean" if spread else "variance like the mean"
        return HeadChoice({"name": column, "likelihood": likelihood}, f"counts, {reason}")
    low, high = float(values.min()), float(values.max())
    if low > 0 and high < 1:
        return HeadChoice({"name": column, "likelihood": "beta"}, f"proportions, {low:.3g} to {high:.3g}")
    if low > 0 and high > 10 * low:
        return HeadChoice({"name": column, "likelihood": "log_normal"}, f"positive, {low:.3g} to {high:.3g}")
    deviations = (values - values.mean()) / max(float(values.std()), 1e-12)
    heavy = float((deviations**4).mean()) > 10
    reason = "real numbers with outliers" if heavy else "real numbers"
    likelihood = "student_t" if heavy else "normal"
    return HeadChoice({"name": column, "likelihood": likelihood}, f"{reason}, {low:.3g} to {high:.3g}")


def _classes(column: str, labels: list[str], reason: str) -> HeadChoice:
    return HeadChoice({"name": column, "likelihood": "categorical", "labels": labels}, reason)


def _add_box(source: Source, stem: str, sides: list[str], heads: list[HeadChoice], notes: list[str]) -> None:
    cells = [cell for side in sides for cell in source.cells(side) if cell]
    try:
        values = [parse_number(cell) for cell in cells]
    except ValueError as error:
        notes.append(f"box {stem!r} is left out: a cell {error}")
        return
    if not values or min(values) < 0 or max(values) > 1:
        notes.append(f"box {stem!r} is left out: write its sides as fractions of the image's, 0 to 1")
        return
    heads.append(HeadChoice({"name": stem, "likelihood": "box"}, "four columns of fractions"))


def _choose_mask(source: Source, column: str, cells: Sequence[str]) -> HeadChoice:
    """Chooses yes and no, or class numbers, by the values of some masks."""
    missing = [cell for cell in cells if not (source.root / cell).is_file()]
    if missing:
        raise DataError(f"{source.root}: {column}: {len(missing)} masks are not there, such as {missing[0]!r}")
    values: set[float] = set()
    arrays = False
    for place in np.unique(np.linspace(0, len(cells) - 1, _LOOKED_AT).astype(int)):
        path = source.root / cells[place]
        values |= set(_mask_values(path).tolist())
        arrays |= path.suffix == ".npy"
    highest = max(values - {255.0}, default=0.0)
    settings: dict[str, Any] = {"name": column, "per_position": True}
    if 2 <= highest <= 64 and all(value % 1 == 0 for value in values):
        labels = [f"class{number}" for number in range(int(highest) + 1)]
        settings |= {"likelihood": "categorical", "labels": labels}
        return HeadChoice(settings, f"masks of class numbers, 0 to {highest:g}")
    if arrays and not values <= {0.0, 1.0}:
        return HeadChoice(settings | {"likelihood": "normal"}, "maps of real numbers")
    return HeadChoice(settings | {"likelihood": "bernoulli"}, "masks of yes and no")


def _mask_values(path: Path) -> np.ndarray:
    data = path.read_bytes()
    from PIL import Image

    if path.suffix == ".npy":
        return np.unique(np.load(path, allow_pickle=False))
    with Image.open(path) as picture:
        sides = (picture.height, picture.width)
    return np.unique(read_mask(data, sides, sides).values)


def _name_heads(heads: list[HeadChoice]) -> list[HeadChoice]:
    """Gives each head a name that outputs may have, and the column where that is another."""
    named: list[HeadChoice] = []
    taken = {"novelty"}
    for head in heads:
        column = head.name
        name = re.sub(r"[^a-z0-9]+", "_", column.lower()).strip("_") or "target"
        name = name if name[0].isalpha() else f"target_{name}"
        while name in taken:
            name += "_"
        taken.add(name)
        settings = {**head.settings, "name": name} | ({"column": column} if name != column else {})
        named.append(HeadChoice(settings, head.reason))
    return named
