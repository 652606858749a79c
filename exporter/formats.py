"""The table of what can be exported: it drives the options, the conversion, the parity gate and the docs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from probrt.runtime.bundle.manifest import Format, Precision, Variant
from probrt.runtime.errors import UsageError

FORMATS: tuple[Format, ...] = get_args(Format)
VARIANTS: tuple[Variant, ...] = get_args(Variant)


@dataclass(frozen=True)
class Kind:
    """One precision.

    suffix: of its files' names, before the format. variants: that exist in it.
    bytes: of one weight.
    tolerance: how far an output may lie from the model, as a part of the largest reference value (or of 1, if
        that is larger). ranking: least rank correlation of its uncertainties with the model's, over images.
    whole: whether everything is stored so; if not, the final convolution and what follows stay float32.
    """

    precision: Precision
    suffix: str
    variants: tuple[Variant, ...]
    bytes: int
    tolerance: float
    ranking: float
    task: float
    whole: bool
    meaning: str


# Float32 graphs differ by the order of their sums: 1e-6 to 1e-5 on networks of a hundred layers. Half
# precision keeps 11 bits of a weight, int8 about 7, and a network of ten layers adds up ten such roundings.
KINDS = (
    Kind("float32", "", ("mean", "draws", "sampled"), 4, 1e-4, 0.99, 0.0, True, "everything in float32"),
    Kind(
        "float16",
        ".fp16",
        ("mean", "draws"),
        2,
        1e-2,
        0.98,
        0.02,
        True,
        "weights stored in half precision, half the size",
    ),
    Kind("dynamic", ".dynamic", ("mean",), 1, 5e-2, 0.9, 0.05, False, "weights in int8, a quarter of the size"),
    Kind(
        "int8",
        ".int8",
        ("mean",),
        1,
        0.1,
        0.8,
        0.1,
        False,
        "weights and activations in int8, fitted to training images",
    ),
)
BY_PRECISION = {kind.precision: kind for kind in KINDS}


@dataclass(frozen=True)
class GraphSpec:
    """One graph file, or one per chunk of the bank, to be written."""

    variant: Variant
    format: Format
    kind: Kind

    def name(self, chunk: int | None = None) -> str:
        """Its file's name, with the number of a chunk of the bank."""
        number = "" if chunk is None else f"-{chunk:02d}"
        return f"{self.variant}{number}{self.kind.suffix}.{self.format}"


def chosen(words: str, allowed: Sequence[str], option: str) -> tuple[str, ...]:
    """The names in a comma-separated list, in the order of the table; UsageError for one that is not allowed."""
    named = [word.strip() for word in words.split(",") if word.strip()]
    unknown = [word for word in named if word not in allowed]
    if unknown or not named:
        raise UsageError(f"{option} {words}: choose from {', '.join(allowed)}")
    return tuple(word for word in allowed if word in named)


def graph_files(
    formats: Sequence[str], precisions: Sequence[str], variants: Sequence[str], possible: Sequence[str]
) -> list[GraphSpec]:
    """The graph files of a choice, of the variants that the model has; UsageError if nothing is left to write."""
    found = [
        GraphSpec(variant, format, kind)
        for variant in VARIANTS
        for kind in KINDS
        for format in FORMATS
        if variant in variants and variant in possible and variant in kind.variants
        if kind.precision in precisions and format in formats and format != "savedmodel"
    ]
    if not found and "savedmodel" not in formats:
        raise UsageError(
            f"--formats {','.join(formats)} --precisions {','.join(precisions)} --variants {','.join(variants)}: "
            f"nothing to write; this model has {', '.join(possible)}, and "
            + "; ".join(f"{kind.precision} is for {', '.join(kind.variants)}" for kind in KINDS)
        )
    return found
