"""What the manifest states of a model: its heads, its novelty and its draws."""

from __future__ import annotations

from probrt.exporter.bank import Bank
from probrt.exporter.exportable import Exportable
from probrt.runtime.bundle.manifest import HeadRecord, NoveltyRecord, PosteriorRecord, Tuning

CHUNK = 8
MAX_SAMPLES = 1024


def make_head_records(model: Exportable) -> list[HeadRecord]:
    """Returns the heads as the manifest states them."""
    return [head.to_record(model.positions(head)) for head in model.heads]


def make_novelty_record(model: Exportable) -> NoveltyRecord | None:
    """Returns how the graphs compute novelty, as the manifest states it; None if they do not."""
    if model.novelty is None:
        return None
    return NoveltyRecord(
        images=len(model.novelty.scores),
        fitted=model.novelty.fitted,
        method=model.novelty.method,
        stages=list(dict.fromkeys(map(str, model.novelty.stages))),
        map=model.members[0].map_sides if model.novelty.map else False,
    )


def make_posterior_record(
    model: Exportable, bank: Bank, seed: int, draws: int, tuning: Tuning | None = None
) -> PosteriorRecord | None:
    """Returns the manifest's record of the draws; None for a model with one draw only."""
    if model.max_draws == 1:
        return None
    return PosteriorRecord(
        seed=seed,
        order=bank.order,
        chunk=model.max_draws or CHUNK,
        samples=draws,
        max_samples=model.max_draws or MAX_SAMPLES,
        selection=bank.selection,
        tuning=tuning,
    )
