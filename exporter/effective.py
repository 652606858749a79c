"""How many independent draws a bank's draws equal: as many as would have the same errors of mean and spread.

The squared error of n independent draws is a / n + b / n², of the mean (b = 0) and of the spread, whose estimate over n
draws is also too small by a part 1 / n. Both numbers come from groups of the pool's draws. The pool itself is off the
truth by the error of its size. That is added to the error of draws that were chosen to be near the pool's average; the
error of draws tuned to others has it already. So draws can be worth no more than the pool. What counts is the worst of
four: mean and spread, on images like the training images and on shifted ones, none of which the bank was made on. Of
each kind those are taken on which draws differ most, for there the errors are made (`bank_images.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from probrt.exporter.bank_errors import (
    PoolSummary,
    Summary,
    compute_independent_error,
    share_of_pool_error,
    summarize_draws,
    summarize_pool,
)
from probrt.exporter.draw_pool import Pool, compile_draws, size_of_pool, thin_positions
from probrt.exporter.exportable import Exportable
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import EffectiveDraws, FileRecord, HeadRecord, PosteriorRecord, RunPrecision
from probrt.runtime.engines import BUILT_IN, Engine
from probrt.runtime.predict.combine import combine_chunks

# Sizes of the groups that give a and b, and how many groups.
_FEW, _MANY, _GROUPS = 8, 64, 128
_THREADS = 2


@dataclass(frozen=True)
class ErrorLaw:
    """The squared error of n independent draws: a / n + b / n²."""

    a: float
    b: float

    def square(self, draws: float) -> float:
        """Returns the squared error of a number of draws."""
        return self.a / draws + self.b / draws**2

    def count(self, square: float) -> float:
        """Returns how many draws have this squared error."""
        if square <= 0:
            return math.inf
        return (self.a + math.sqrt(self.a**2 + 4 * self.b * square)) / (2 * square)


def fit_law(few: int, square_of_few: float, many: int, square_of_many: float) -> ErrorLaw:
    """Returns the law through two points; a and b are not negative."""
    a = (square_of_many * many**2 - square_of_few * few**2) / (many - few)
    b = square_of_few * few**2 - a * few
    if b < 0:
        return ErrorLaw(square_of_many * many, 0.0)
    return ErrorLaw(a, b) if a > 0 else ErrorLaw(square_of_few * few, 0.0)


@dataclass(frozen=True)
class Yardstick:
    """Measures what draws are worth.

    images: raw, [2 count, *input.shape]: like the training images, then shifted; slices: where each set lies among
    those of the pool. sides: the number of sides of each head's map. laws: of mean and spread, by set.
    """

    heads: Sequence[HeadRecord]
    sides: Mapping[str, int]
    pool: Pool
    images: npt.NDArray[np.float32]
    slices: tuple[slice, slice]
    summaries: tuple[PoolSummary, PoolSummary]
    laws: tuple[tuple[ErrorLaw, ErrorLaw], ...]

    def measure_order(self, order: Sequence[int]) -> EffectiveDraws:
        """Returns what some draws of the pool are worth in float32."""
        answers = [summarize_draws(self.heads, self.pool, images, list(order)) for images in self.slices]
        return self.compare("float32", len(order), answers)

    def measure_draws(self, answers: Pool, draws: int, tuned: int = 0) -> EffectiveDraws:
        """Returns what the first draws are worth in float32; answers: of draws on `images`, thinned.

        tuned: as in `compare`.
        """
        count = len(self.images) // 2
        halves = slice(0, count), slice(count, None)
        summaries = [summarize_draws(self.heads, answers, rows, range(draws)) for rows in halves]
        return self.compare("float32", draws, summaries, tuned)

    def compare(
        self, precision: RunPrecision, draws: int, answers: Sequence[dict[str, Summary]], tuned: int = 0
    ) -> EffectiveDraws:
        """Returns what draws are worth whose answers on both sets of images are given.

        tuned: how many draws of the bank, the first, the pool did not make.
        """
        size = size_of_pool(self.pool)
        missing = max(0.0, share_of_pool_error(tuned, draws))  # what is measured too much is left: never more than true
        errors, counts = [], []
        for summary, laws, answer in zip(self.summaries, self.laws, answers, strict=True):
            errors.append(summary.compute_error(answer))
            for law, error in zip(laws, errors[-1], strict=True):
                counts.append(law.count(error**2 + missing * law.square(size)))
        (mean, spread), (shifted_mean, shifted_spread) = errors
        return EffectiveDraws(
            precision=precision,
            draws=draws,
            mean=(_round(mean), _round(shifted_mean)),
            spread=(_round(spread), _round(shifted_spread)),
            effective=_round(min(*counts, size)),
        )

    def split(self, answers: Mapping[str, Summary]) -> list[dict[str, Summary]]:
        """Returns the answers to `images`, thinned as the pool's are, for each of the two sets."""
        count = len(self.images) // 2
        thinned = {
            name: tuple(thin_positions(np.asarray(values, np.float64), self.sides[name]) for values in summary)
            for name, summary in answers.items()
        }
        return [
            {name: (mean[rows], spread[rows]) for name, (mean, spread) in thinned.items()}
            for rows in (slice(0, count), slice(count, None))
        ]


def make_yardstick(
    heads: Sequence[HeadRecord],
    sides: Mapping[str, int],
    pool: Pool,
    images: npt.NDArray[np.float32],
    slices: tuple[slice, slice],
) -> Yardstick:
    """Fits the laws of independent draws on two sets of the pool's images, [images, *input.shape]."""
    size = size_of_pool(pool)
    many = min(_MANY, size // 4)
    few = min(_FEW, many // 2)
    summaries, laws = [], []
    for rows in slices:
        summary = summarize_pool(heads, pool, rows)
        # Draws out of the pool are nearer to its average than to the truth.
        squares = [
            np.square(compute_independent_error(heads, pool, rows, draws, _GROUPS, summary)) / (1 - draws / size)
            for draws in (few, many)
        ]
        laws.append(tuple(fit_law(few, float(squares[0][i]), many, float(squares[1][i])) for i in range(2)))
        summaries.append(summary)
    measured = np.concatenate([images[rows] for rows in slices])
    return Yardstick(heads, sides, pool, measured, slices, (summaries[0], summaries[1]), tuple(laws))  # type: ignore[arg-type]


def measure_effective_draws(
    model: Exportable, yardstick: Yardstick, bundle: Bundle, posterior: PosteriorRecord
) -> list[EffectiveDraws]:
    """Returns what each number of chunks of the bank is worth, in every precision that this machine can run."""
    ends = range(posterior.chunk, len(posterior.order) + 1, posterior.chunk)
    draws = compile_draws(model, yardstick.images[:1], posterior.seed)(yardstick.images, posterior.order)
    tuned = len(model.tuned.indices) if model.tuned else 0
    records = [yardstick.measure_draws(draws, count, tuned) for count in ends]
    for precision, engine, files in _list_runs(bundle):
        combiners = [combine_chunks(head) for head in yardstick.heads]
        for file in files:
            outputs = engine.load_graph(bundle, [file], "cpu", _THREADS, precision)({"images": yardstick.images})
            for combiner in combiners:
                combiner.add(outputs, file.draws[1] if file.draws else 0)
            answers = {combiner.head.name: _take_summary(combiner.combine()) for combiner in combiners}
            count = combiners[0].draws
            records.append(yardstick.compare(precision, count, yardstick.split(answers), tuned))
    return records


def _list_runs(bundle: Bundle) -> Iterator[tuple[RunPrecision, Engine, list[FileRecord]]]:
    """Yields the coarser ways to run the bank, and its chunks in order."""
    engines = sorted((engine for engine in BUILT_IN if engine.installed), key=lambda engine: engine.start)
    for precision in dict.fromkeys(file.precision for file in bundle.manifest.files if file.variant == "draws"):
        for engine in engines:
            files = bundle.files(engine.format, "draws", precision)
            if precision == "int8" and len(bundle.manifest.input.shape) == 2 and not engine.int8_sequences:
                continue
            if precision != "float32" and files:
                yield precision, engine, files
                break
    for engine in engines:
        files = bundle.files(engine.format, "draws", "float32")
        if files and engine.has_bfloat16("cpu"):
            yield "bfloat16", engine, files


def _take_summary(quantities: Mapping[str, npt.NDArray[Any]]) -> Summary:
    return np.asarray(quantities["mean"], np.float64), np.asarray(quantities["epistemic"], np.float64)


def _round(value: float) -> float:
    """Three significant digits: the measurement has no more."""
    return float(f"{value:.3g}")
