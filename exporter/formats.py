"""The table of formats: it drives the options of `probrt export`, the parity gate and the docs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar, get_args

from probrt.runtime.bundle.manifest import Format, Precision, Variant
from probrt.runtime.errors import UsageError

FORMATS: tuple[Format, ...] = get_args(Format)
VARIANTS: tuple[Variant, ...] = get_args(Variant)
Name = TypeVar("Name", bound=str)


@dataclass(frozen=True, kw_only=True)
class PrecisionSpec:
    """One precision and what its files owe.

    suffix: of file names, before the format. variants: that exist in this precision.
    weight_bytes: size of one stored weight.
    tolerance: largest difference of an output from the model, as a part of the largest reference value (or of 1, if
        that is larger).
    least_ranking: least rank correlation of its uncertainties with the model's, over images.
    novelty_tolerance: largest difference of the score of novelty from the model's, as a part of it (or of 1).
    map_tolerance: the same of the scores of positions, in the root mean square over those of an image.
    task_loss: how much worse than the model's each head's metric may be, as a part of the model's.
    spread_error: largest root mean square difference of an epistemic part from the model's, as a part of it; None is
        not measured.
    whole_graph: whether everything is stored so; if not, the final layers and what follows stay float32.
    meaning: in the words of the docs.
    """

    name: Precision
    suffix: str
    variants: tuple[Variant, ...]
    weight_bytes: int
    tolerance: float
    least_ranking: float
    novelty_tolerance: float
    map_tolerance: float
    task_loss: float
    whole_graph: bool
    meaning: str
    spread_error: float | None = None


# Float32 graphs differ by the order of their sums: 1e-6 to 1e-5 on networks of a hundred layers. Half precision keeps
# 11 bits of a weight and int8 about 7; a network of ten layers adds up ten such roundings.
PRECISIONS = (
    PrecisionSpec(
        name="float32",
        suffix="",
        variants=("mean", "draws", "sampled"),
        weight_bytes=4,
        tolerance=1e-4,
        least_ranking=0.99,
        novelty_tolerance=2e-3,
        map_tolerance=2e-3,
        task_loss=0.0,
        whole_graph=True,
        meaning="everything in float32",
    ),
    PrecisionSpec(
        name="float16",
        suffix=".fp16",
        variants=("mean", "draws"),
        weight_bytes=2,
        tolerance=1e-2,
        least_ranking=0.98,
        novelty_tolerance=5e-2,
        map_tolerance=0.25,
        task_loss=0.02,
        whole_graph=True,
        meaning="weights stored in half precision, half the size",
    ),
    PrecisionSpec(
        name="dynamic",
        suffix=".dynamic",
        variants=("mean",),
        weight_bytes=1,
        tolerance=5e-2,
        least_ranking=0.9,
        novelty_tolerance=0.5,
        map_tolerance=0.5,
        task_loss=0.05,
        whole_graph=False,
        meaning="weights in int8, a quarter of the size",
    ),
    PrecisionSpec(
        name="int8",
        suffix=".int8",
        variants=("mean", "draws"),
        weight_bytes=1,
        tolerance=0.1,
        least_ranking=0.8,
        novelty_tolerance=1.0,
        map_tolerance=1.0,
        task_loss=0.1,
        spread_error=0.5,
        whole_graph=False,
        meaning="weights and activations in int8, fitted to training images",
    ),
)
BY_PRECISION: dict[Precision, PrecisionSpec] = {precision.name: precision for precision in PRECISIONS}


@dataclass(frozen=True)
class GraphSpec:
    """One graph file to write, or one per chunk of the bank."""

    variant: Variant
    format: Format
    precision: PrecisionSpec

    def file_name(self, chunk: int | None = None) -> str:
        """The file's name; `chunk` is the position of a chunk of the bank."""
        suffix = "" if chunk is None else f"-{chunk:02d}"
        return f"{self.variant}{suffix}{self.precision.suffix}.{self.format}"


def parse_names(text: str, allowed: Sequence[Name], option: str) -> tuple[Name, ...]:
    """Returns the names of a comma-separated list, in the order of `allowed`; UsageError for any other name."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in allowed]
    if unknown or not names:
        raise UsageError(f"{option} {text}: choose from {', '.join(allowed)}")
    return tuple(name for name in allowed if name in names)


def select_graphs(
    formats: Sequence[Format],
    precisions: Sequence[Precision],
    variants: Sequence[Variant],
    available: Sequence[Variant],
) -> list[GraphSpec]:
    """Returns the graph files that a request means, of the variants that the model has.

    Raises UsageError if there is nothing to write.
    """
    graphs = [
        GraphSpec(variant, format, precision)
        for variant in VARIANTS
        for precision in PRECISIONS
        for format in FORMATS
        if variant in variants and variant in available and variant in precision.variants
        if precision.name in precisions and format in formats and format != "savedmodel"
    ]
    if not graphs and "savedmodel" not in formats:
        raise UsageError(
            f"--formats {','.join(formats)} --precisions {','.join(precisions)} --variants {','.join(variants)}: "
            f"nothing to write; this model has {', '.join(available)}, and "
            + "; ".join(f"{precision.name} is for {', '.join(precision.variants)}" for precision in PRECISIONS)
        )
    return graphs
