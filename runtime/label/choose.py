"""Chooses from a pool: by what the labels would tell, by novelty, or both in shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from probrt.runtime.label.batchbald import choose_batch
from probrt.runtime.label.pool import Pool
from probrt.runtime.rows.numbers import Row


@dataclass(frozen=True)
class Chosen:
    """An image to label.

    reason: "novelty" or "information". information: what its label adds to those of its group, in nats; None if it was
    chosen by novelty.
    """

    row: Row
    reason: str
    information: float | None = None
    group: int | None = None


def choose_images(pool: Pool, take: int, novel: int) -> list[Chosen]:
    """Returns `take` images of a pool, or all if it has fewer: the `novel` most novel, then the most informative."""
    chosen = [Chosen(row, "novelty") for row in pool.novel[:novel]]
    known = {item.row["file"] for item in chosen}
    others = [image for image in pool.informative if image.file not in known]
    if others and len(chosen) < take:
        labels = np.stack([image.probabilities for image in others])
        for choice in choose_batch(labels, take - len(chosen)):
            row = others[choice.index].row
            chosen.append(Chosen(row, "information", choice.information, choice.group))
    return chosen


def make_tasks(chosen: Sequence[Chosen], head: str, prefix: str, version: str) -> list[dict[str, object]]:
    """Returns Label Studio tasks with the model's label as a pre-annotation.

    prefix: what comes before a file's name to make its address. The labelling interface calls its choices `label` and
    its image `image`.
    """
    return [_make_task(item.row, head, prefix, version) for item in chosen]


def _make_task(row: Row, head: str, prefix: str, version: str) -> dict[str, object]:
    answer = row["heads"][head]
    labels = [answer["label"]] if isinstance(answer["label"], str) else list(answer["label"])
    result = {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": labels}}
    prediction: dict[str, object] = {"model_version": version, "result": [result]}
    if "probability" in answer:
        prediction["score"] = answer["probability"]
    return {"data": {"image": prefix + row["file"]}, "predictions": [prediction]}
