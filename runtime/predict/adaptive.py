"""How a run gets its answers: all draws for every image, or draws added only where they are still needed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.manifest import Manifest
from probrt.runtime.errors import UsageError
from probrt.runtime.images.loader import Loaded
from probrt.runtime.predict.combine import Floats, Sum, stacked, standard_error
from probrt.runtime.predict.predictor import Prediction, Predictor, answer_of

FIRST = 8

Answered = tuple[Loaded, Prediction, int]


class Answering(Protocol):
    """Takes full batches; gives answers, as the place of an image in a prediction, when they are final."""

    def push(self, images: list[Loaded], last: bool) -> Iterator[Answered]: ...

    def flush(self) -> Iterator[Answered]: ...


class Fixed:
    """The plan's number of draws for every image."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def push(self, images: list[Loaded], last: bool) -> Iterator[Answered]:
        prediction = self._predictor.answer(pixels(images), last)
        yield from ((image, prediction, index) for index, image in enumerate(images))

    def flush(self) -> Iterator[Answered]:
        return iter(())


@dataclass
class _Held:
    """An image that needs more draws, with what its draws so far come to."""

    image: Loaded
    sums: list[Sum]


class Adaptive:
    """Adds draws, chunk by chunk, to the images whose standard error is above the tolerance.

    Images that go on are regrouped into full batches, so that the engine is never fed by halves. A
    SavedModel starts every answer anew and doubles the number instead.
    tolerance: head -> largest standard error of the predictive mean (`combine.standard_error`).
    """

    def __init__(self, predictor: Predictor, tolerance: Mapping[str, float]) -> None:
        self._predictor = predictor
        self._tolerance = tolerance
        self._heads = predictor.bundle.manifest.heads
        self._pools: dict[tuple[int, tuple[int, ...]], list[_Held]] = {}

    def push(self, images: list[Loaded], last: bool) -> Iterator[Answered]:
        del last  # more chunks follow for some: keep what is loaded
        yield from self._step(0, [_Held(image, [Sum(head) for head in self._heads]) for image in images])

    def flush(self) -> Iterator[Answered]:
        while self._pools:
            level, shape = min(self._pools)
            yield from self._step(level, self._pools.pop((level, shape)))

    def _step(self, level: int, held: list[_Held]) -> Iterator[Answered]:
        """One more helping of draws for a batch."""
        images = [one.image for one in held]
        named, sums, draws = self._more(level, held)
        heads = {head: answer_of(quantities) for head, quantities in named.items()}
        prediction = Prediction(heads, np.full(len(held), draws, np.int32))
        enough = self._enough(named, draws)
        for index in np.flatnonzero(enough):
            yield images[index], prediction, int(index)
        for index in np.flatnonzero(~enough):
            image = images[index]
            key = (level + 1, image.pixels.shape if image.pixels is not None else ())
            pool = self._pools.setdefault(key, [])
            pool.append(_Held(image, [total.rows(np.array([index])) for total in sums]))
            if len(pool) == self._predictor.batch_size:
                yield from self._step(level + 1, self._pools.pop(key))

    def _more(
        self, level: int, held: list[_Held]
    ) -> tuple[Mapping[str, Mapping[str, npt.NDArray[np.floating]]], list[Sum], int]:
        """Answers so far (head -> quantity -> values), the sums behind them, and their number of draws."""
        plan, images = self._predictor.plan, pixels([one.image for one in held])
        if plan.chunk == 0:
            draws = min(FIRST << level, plan.samples)
            return self._predictor.whole(images, draws), [], draws
        sums = [stacked([one.sums[i] for one in held]) for i in range(len(self._heads))]
        arrays = self._predictor.chunk(images, level)
        for total in sums:
            total.add(arrays, plan.chunk)
        return {total.head.name: total.answer() for total in sums}, sums, sums[0].draws

    def _enough(self, named: Mapping[str, Mapping[str, npt.NDArray[np.floating]]], draws: int) -> npt.NDArray[np.bool_]:
        fine = [np.ones(len(next(iter(named.values()))["mean"]), bool)]
        if draws < self._predictor.plan.samples:
            for head in self._heads:
                quantities: dict[str, Floats] = {k: np.asarray(v, np.float64) for k, v in named[head.name].items()}
                if head.name in self._tolerance:
                    fine.append(standard_error(head, quantities, draws) <= self._tolerance[head.name])
        return np.asarray(np.all(fine, axis=0))


def pixels(images: list[Loaded]) -> npt.NDArray[np.float32]:
    """The images of a batch as one array."""
    return np.stack([image.pixels for image in images if image.pixels is not None])


def tolerances(text: str, manifest: Manifest) -> dict[str, float]:
    """`0.01` for every head, or `digit=0.01,slant=0.02`; UsageError for anything else."""
    names = [head.name for head in manifest.heads]
    found = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        try:
            number = float(value if equals else name)
        except ValueError:
            number = -1.0
        if not 0 < number < np.inf or (equals and name not in names):
            raise UsageError(
                f"--tolerance {text}: a positive number, or HEAD=NUMBER,... with heads of {', '.join(names)}"
            )
        found.update({name: number} if equals else dict.fromkeys(names, number))
    return found
