"""Whether a coarser file still does the task: each head's metric on images whose targets are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from probrt.exporter.reference import Outputs
from probrt.runtime.bundle.manifest import ParityRecord
from probrt.trainer.heads import AnyHead

_BATCH = 32


@dataclass(frozen=True)
class Task:
    """Raw images [count, *input.shape] and each head's targets [count, …], as the trainer has them; missing ones too.

    Without targets (an adopted model has none) there is nothing to compare.
    """

    images: np.ndarray
    targets: dict[str, np.ndarray]

    def batches(self) -> Iterator[np.ndarray]:
        """The images, float32, few at a time: an answer of maps takes much more than its image."""
        for first in range(0, len(self.images), _BATCH):
            yield self.images[first : first + _BATCH].astype(np.float32)

    def compared(
        self, heads: Sequence[AnyHead], file: str, answer: Outputs, expected: Outputs, allowed: float
    ) -> tuple[list[ParityRecord], list[str]]:
        """Rows for the manifest and faults: a score may be worse than the model's by that part of it."""
        rows, faults = [], []
        for head in heads:
            ours, theirs = (self._score(head, said[f"{head.name}.mean"]) for said in (answer, expected))
            if ours is None or theirs is None:
                continue
            loss = theirs - ours if head.higher_is_better else ours - theirs
            what = f"{head.name} {head.metric_name}"
            # A score of 0 leaves nothing to lose, and an error of 0 no part of it: then any loss is too much.
            tolerance = max(allowed * abs(theirs), 1e-9)
            rows.append(
                ParityRecord(
                    file=file,
                    head=head.name,
                    metric=head.metric_name,
                    absolute=abs(ours - theirs),
                    relative=abs(ours - theirs) / max(abs(theirs), 1e-30),
                    tolerance=tolerance,
                )
            )
            if loss > tolerance:
                faults.append(f"{what} is {ours:.4g} on {len(self.images)} training images, the model's {theirs:.4g}")
        return rows, faults

    def _score(self, head: AnyHead, mean: np.ndarray) -> float | None:
        """The head's metric over the images that have a target; None if none has."""
        if head.name not in self.targets:
            return None
        scores = head.metric(np.asarray(mean, np.float32), self.targets[head.name]).numpy()
        return float(scores.mean(dtype=np.float64)) if len(scores) else None
