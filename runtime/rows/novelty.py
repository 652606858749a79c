"""Novelty in rows: the score of an image, its p-value, and the verdict that it is unknown."""

from __future__ import annotations

import math
from dataclasses import dataclass

from probrt.runtime.bundle.manifest import NOVELTY_QUANTITIES, Manifest
from probrt.runtime.calibration.unknown import LEVEL, smallest_p_value, usual_level
from probrt.runtime.errors import UsageError
from probrt.runtime.predict.answer import Novelty
from probrt.runtime.rows.kinds import Column
from probrt.runtime.rows.numbers import Row, round_number

OFF = "off"
# p-values are float32: the smallest of a bundle may lie above the level that equals it by as much.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class NoveltyRows:
    """What rows hold of novelty. level: the p-value up to which an image is unknown; None leaves the verdict out."""

    level: float | None

    @property
    def columns(self) -> dict[str, Column]:
        """The flat columns of `make`, without the name of the group."""
        verdict: dict[str, Column] = {} if self.level is None else {"unknown": ("flag", 0)}
        return dict.fromkeys(NOVELTY_QUANTITIES, ("number", 0)) | verdict

    def make(self, novelty: Novelty, index: int) -> Row:
        """Returns the novelty of the image at `index` of a batch."""
        p_value = float(novelty.p_value[index])
        row: Row = {"score": round_number(float(novelty.score[index])), "p_value": round_number(p_value)}
        if self.level is not None:
            row["unknown"] = p_value <= self.level * (1 + _ROUNDING)
        return row


def is_unknown(row: Row) -> bool:
    """Whether a row says that its image is unknown."""
    return bool((row.get("novelty") or {}).get("unknown"))


def choose_novelty(manifest: Manifest, unknown: str | None) -> NoveltyRows | None:
    """Returns what rows hold of novelty; None if the bundle has none.

    unknown: what `--unknown` asks for: a level, or `off`. None means the usual level.
    Raises UsageError for a level that is none, that no image can reach, or that the bundle has no novelty for.
    """
    if manifest.novelty is None:
        if unknown not in (None, OFF):
            raise UsageError(
                f"--unknown {unknown}: the bundle has no novelty; train and export it again, or leave the option out"
            )
        return None
    if unknown == OFF:
        return NoveltyRows(None)
    if unknown is None:
        return NoveltyRows(usual_level(manifest.novelty.images))
    try:
        level = float(unknown)
    except ValueError:
        level = math.nan
    if not 0 < level < 1:
        raise UsageError(f"--unknown {unknown}: a level above 0 and below 1, e.g. {LEVEL}, or {OFF}")
    smallest = smallest_p_value(manifest.novelty.images)
    if level < smallest * (1 - _ROUNDING):
        raise UsageError(
            f"--unknown {unknown}: with {manifest.novelty.images} calibration images no p-value is below "
            f"{smallest:.4f}; ask for that or more, or calibrate on more images"
        )
    return NoveltyRows(level)
