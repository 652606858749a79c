"""Whether the draws of a bank are kept: their errors on images that they were neither chosen nor tuned on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from probrt.exporter.bank_errors import (
    PoolSummary,
    compute_independent_error,
    share_of_pool_error,
    summarize_draws,
    summarize_pool,
)
from probrt.exporter.draw_pool import Pool, size_of_pool
from probrt.runtime.bundle.manifest import BankError, HeadRecord

# How many groups of independent draws the bank is compared with.
_GROUPS = 32

Kind = Literal["training", "shifted"]


@dataclass(frozen=True)
class Trial:
    """Compares the first draws of a bank with the pool, and with as many independent draws.

    size: of the pool. images: raw, [images, *input.shape], of both kinds. rows: where each kind lies among them.
    summaries: the pool's. independent: errors of mean and spread by number of draws and kind.
    """

    heads: Sequence[HeadRecord]
    chunk: int
    size: int
    images: npt.NDArray[np.float32]
    rows: dict[Kind, slice]
    summaries: dict[Kind, PoolSummary]
    independent: dict[tuple[int, Kind], tuple[float, float]]

    def measure(self, answers: Pool) -> list[BankError]:
        """Returns the errors after each chunk; answers: of the draws in order, on `images`."""
        errors = []
        for draws, kind in self.independent:
            if draws > size_of_pool(answers):
                continue
            answer = summarize_draws(self.heads, answers, self.rows[kind], range(draws))
            mean, spread = self.summaries[kind].compute_error(answer)
            independent_mean, independent_spread = self.independent[draws, kind]
            errors.append(
                BankError(
                    draws=draws,
                    images=kind,
                    mean=mean,
                    spread=spread,
                    independent_mean=independent_mean,
                    independent_spread=independent_spread,
                )
            )
        return errors

    def is_better_than_independent(self, errors: Sequence[BankError]) -> bool:
        """Whether draws beat independent ones in their first chunk on every kind of images, and in the sum over all."""
        gains = [error.independent_mean + error.independent_spread - error.mean - error.spread for error in errors]
        first_chunk = [gain for error, gain in zip(errors, gains, strict=True) if error.draws == self.chunk]
        return all(gain > 0 for gain in first_chunk) and sum(gains) > 0

    def sum_errors(self, errors: Sequence[BankError], tuned: int) -> float:
        """Returns the sum of a bank's errors against the truth, about; tuned: how many draws the pool did not make.

        The pool is off the truth by the error of its size, whose square is that of a draw by the size.
        """
        total = 0.0
        for error in errors:
            part = share_of_pool_error(tuned, error.draws) * error.draws / self.size
            total += math.sqrt(max(error.mean**2 + part * error.independent_mean**2, 0.0))
            total += math.sqrt(max(error.spread**2 + part * error.independent_spread**2, 0.0))
        return total


def make_trial(
    heads: Sequence[HeadRecord],
    pool: Pool,
    images: npt.NDArray[np.float32],
    sets: tuple[slice, slice],
    draws: int,
    chunk: int,
) -> Trial:
    """Measures independent draws out of the pool; images: the pool's. sets: of both kinds, one after the other."""
    first = sets[0].start
    kinds: tuple[Kind, Kind] = ("training", "shifted")
    summaries = {kind: summarize_pool(heads, pool, rows) for kind, rows in zip(kinds, sets, strict=True)}
    independent = {
        (count, kind): compute_independent_error(heads, pool, rows, count, _GROUPS, summaries[kind])
        for count in range(chunk, draws + 1, chunk)
        for kind, rows in zip(kinds, sets, strict=True)
    }
    rows = {kind: slice(rows.start - first, rows.stop - first) for kind, rows in zip(kinds, sets, strict=True)}
    return Trial(heads, chunk, size_of_pool(pool), images[first : sets[1].stop], rows, summaries, independent)
