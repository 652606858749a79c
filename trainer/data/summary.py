"""Describes a data set in a few lines for a person: counts, ranges, sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from probrt.runtime.bundle.manifest import Kind
from probrt.trainer.data.examples import Dataset, Examples
from probrt.trainer.heads import AnyHead

_SHOWN = 12


def summarise(data: Dataset, heads: Sequence[AnyHead]) -> list[str]:
    """Returns one line for the images, one per head and split, and one per note."""
    lines = []
    if data.sides:
        common = sorted(data.sides.items(), key=lambda item: -item[1])
        shown = ", ".join(f"{' x '.join(map(str, sides))} ({count})" for sides, count in common[:4])
        more = f" and {len(common) - 4} other sizes" if len(common) > 4 else ""
        lines.append(f"image sizes: {shown}{more}")
    for head in heads:
        lines += [
            f"{head.name}, {split}: {describe_targets(head, examples)}"
            for split, examples in data.splits.items()
            if len(examples)
        ]
    return lines + [f"note: {note}" for note in data.notes]


def describe_targets(head: AnyHead, examples: Examples) -> str:
    """Describes a head's targets in one split."""
    targets = examples.targets[head.name]
    missing = int(np.sum(~head.is_known(targets).numpy()))
    return _DESCRIBE[head.kind](head, targets) + (f" ({missing} missing)" if missing else "")


def _describe_classes(head: AnyHead, targets: np.ndarray) -> str:
    counts = head.count_classes(targets)
    shown = ", ".join(f"{label} {count}" for label, count in list(counts.items())[:_SHOWN])
    return shown + (f" and {len(counts) - _SHOWN} more classes" if len(counts) > _SHOWN else "")


def _describe_binary(head: AnyHead, targets: np.ndarray) -> str:
    return _describe_outputs(head, targets, lambda values: f"yes in {values.mean():.1%}")


def _describe_real(head: AnyHead, targets: np.ndarray) -> str:
    return _describe_outputs(
        head,
        targets,
        lambda values: f"{values.min():.4g} to {values.max():.4g}, mean {values.mean(dtype=np.float64):.4g}",
    )


def _describe_outputs(head: AnyHead, targets: np.ndarray, describe: Callable[[np.ndarray], str]) -> str:
    """Describes the known values of each output, over examples and positions."""
    parts = []
    for name, column in zip(head.names, targets.reshape(-1, targets.shape[-1]).T, strict=False):
        known = column[np.isfinite(column)]
        parts.append(f"{name} {describe(known) if len(known) else 'never known'}")
    return "; ".join(parts[:_SHOWN])


_DESCRIBE: Final[dict[Kind, Callable[[AnyHead, np.ndarray], str]]] = {
    "class": _describe_classes,
    "binary": _describe_binary,
    "real": _describe_real,
}
