"""Whether a coarser file still does the task: each head's metric on images whose targets are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from probrt.exporter.reference import NamedArrays
from probrt.runtime.bundle.manifest import ParityRecord
from probrt.trainer.heads import AnyHead

_BATCH = 32


@dataclass(frozen=True)
class TaskExamples:
    """Training images and their targets.

    images: raw, [count, *input.shape]. targets: of each head by name, [count, …] in the trainer's form; some may be
    missing. An adopted model has none, and then there is nothing to compare.
    """

    images: npt.NDArray[Any]
    targets: dict[str, npt.NDArray[Any]]

    def batches(self) -> Iterator[npt.NDArray[np.float32]]:
        """Yields the images in small batches, float32: a map's outputs take far more memory than its image."""
        for first in range(0, len(self.images), _BATCH):
            yield self.images[first : first + _BATCH].astype(np.float32)

    def compare_metrics(
        self, heads: Sequence[AnyHead], file: str, answer: NamedArrays, expected: NamedArrays, allowed: float
    ) -> tuple[list[ParityRecord], list[str]]:
        """Compares each head's metric of a file's answers with that of the model's answers.

        allowed: how much worse it may be, as a part of the model's. Returns records for the manifest, and faults.
        """
        records, faults = [], []
        for head in heads:
            score = self._score(head, answer[f"{head.name}.mean"])
            expected_score = self._score(head, expected[f"{head.name}.mean"])
            if score is None or expected_score is None:
                continue
            loss = expected_score - score if head.higher_is_better else score - expected_score
            # A score of 0 has nothing to lose, and an error of 0 has no part: then any loss is too much.
            tolerance = max(allowed * abs(expected_score), 1e-9)
            record = ParityRecord(
                file=file,
                head=head.name,
                metric=head.metric_name,
                absolute=abs(loss),
                relative=abs(loss) / max(abs(expected_score), 1e-30),
                tolerance=tolerance,
            )
            records.append(record)
            if loss > tolerance:
                count = len(self.images)
                faults.append(
                    f"{record.label} is {score:.4g} on {count} training images, the model's {expected_score:.4g}"
                )
        return records, faults

    def _score(self, head: AnyHead, mean: npt.NDArray[Any]) -> float | None:
        """The head's metric, averaged over the images that have a target; None if none has."""
        if head.name not in self.targets:
            return None
        scores = head.metric(np.asarray(mean, np.float32), self.targets[head.name]).numpy()
        return float(scores.mean(dtype=np.float64)) if len(scores) else None
