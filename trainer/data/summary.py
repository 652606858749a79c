"""What the data are, in a few lines for a person: counts, ranges, sizes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from probrt.trainer.data.examples import Dataset, Examples
from probrt.trainer.heads import AnyHead
from probrt.trainer.heads.bernoulli import BinaryHead
from probrt.trainer.heads.categorical import ClassHead

_SHOWN = 12


def summary(data: Dataset, heads: Sequence[AnyHead]) -> list[str]:
    """One line for the images, one per head and split, one per thing worth a look."""
    lines = []
    if data.sides:
        common = sorted(data.sides.items(), key=lambda item: -item[1])
        shown = ", ".join(f"{' x '.join(map(str, sides))} ({count})" for sides, count in common[:4])
        more = f" and {len(common) - 4} other sizes" if len(common) > 4 else ""
        lines.append(f"image sizes: {shown}{more}")
    for head in heads:
        lines += [
            f"{head.name}, {split}: {targets(head, examples)}"
            for split, examples in data.splits.items()
            if len(examples)
        ]
        if isinstance(head, ClassHead):
            counts = class_counts(head, data.splits["train"]) if "train" in data.splits else None
            absent = [label for label, count in zip(head.labels, counts, strict=True) if not count] if counts else []
            if absent:
                lines.append(f"note: {head.name}: no training example of {', '.join(absent)}")
    return lines + [f"note: {note}" for note in data.notes]


def targets(head: AnyHead, examples: Examples) -> str:
    """A head's targets in one split, in words."""
    values = examples.targets[head.name]
    if isinstance(head, ClassHead):
        counts = class_counts(head, examples)
        shown = ", ".join(f"{label} {count}" for label, count in list(zip(head.labels, counts, strict=True))[:_SHOWN])
        more = f" and {len(counts) - _SHOWN} more classes" if len(counts) > _SHOWN else ""
        return f"{shown}{more}{_missing(values < 0)}"
    values = values.reshape(-1, values.shape[-1])
    parts = []
    for name, column in zip(head.names, values.T, strict=False):
        known = column[np.isfinite(column)]
        if not len(known):
            parts.append(f"{name} never known")
        elif isinstance(head, BinaryHead):
            parts.append(f"{name} yes in {known.mean():.1%}")
        else:
            parts.append(f"{name} {known.min():.4g} to {known.max():.4g}, mean {known.mean(dtype=np.float64):.4g}")
    return "; ".join(parts[:_SHOWN]) + _missing(~np.isfinite(values).all(axis=-1))


def class_counts(head: ClassHead, examples: Examples) -> list[int]:
    """How often each class is there, over examples and positions."""
    values = examples.targets[head.name]
    return np.bincount(values[values >= 0].ravel(), minlength=len(head.labels)).tolist()


def _missing(missing: np.ndarray) -> str:
    return f" ({int(missing.sum())} missing)" if missing.any() else ""
