"""Decides how many draws each image of a run takes: all of them, or more only while an image needs them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.manifest import Manifest
from probrt.runtime.errors import UsageError
from probrt.runtime.images.batches import MAX_WAITING_BYTES, sum_bytes
from probrt.runtime.images.loader import LoadedImage
from probrt.runtime.predict.answer import Prediction
from probrt.runtime.predict.combine import standard_error
from probrt.runtime.predict.predictor import Predictor
from probrt.runtime.predict.running import RunningAnswer, stack_answers

# An image, a prediction, and the position of the image in the prediction's batch.
AnsweredImage = tuple[LoadedImage, Prediction, int]


class DrawPolicy(Protocol):
    """Takes full batches and yields each image once its answer is final.

    regroups: whether it makes batches of its own.
    """

    regroups: ClassVar[bool]

    def push(self, images: list[LoadedImage], last: bool) -> Iterator[AnsweredImage]:
        """Takes a batch of images of one shape; `last`: no batch follows."""
        ...

    def flush(self) -> Iterator[AnsweredImage]:
        """Yields the images that still wait, at the end of a block."""
        ...


class FixedDraws:
    """Takes the plan's number of draws for every image."""

    regroups: ClassVar[bool] = False

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def push(self, images: list[LoadedImage], last: bool) -> Iterator[AnsweredImage]:
        prediction = self._predictor.answer(stack_pixels(images), last)
        yield from ((image, prediction, index) for index, image in enumerate(images))

    def flush(self) -> Iterator[AnsweredImage]:
        return iter(())


class ContinuedDraws:
    """Takes the plan's number of draws, of which some images have the first ones already.

    answers: of each image by its position in the input, the answer over the draws of the plan's first calls; None of
    an image that has none. The number of draws of an answer is that of some of these calls.
    """

    regroups: ClassVar[bool] = False

    def __init__(self, predictor: Predictor, answers: Sequence[RunningAnswer | None]) -> None:
        self._predictor = predictor
        self._answers = answers

    def push(self, images: list[LoadedImage], last: bool) -> Iterator[AnsweredImage]:
        del last  # the images of a batch may need other calls: keep the graphs loaded
        by_draws: dict[int, list[LoadedImage]] = {}
        for image in images:
            answer = self._answers[image.index]
            by_draws.setdefault(answer.draws if answer else 0, []).append(image)
        for draws, group in by_draws.items():
            prediction = self._continue(group, draws)
            yield from ((image, prediction, index) for index, image in enumerate(group))

    def _continue(self, images: list[LoadedImage], draws: int) -> Prediction:
        answers = [answer for image in images if (answer := self._answers[image.index]) is not None]
        running = stack_answers(answers) if answers else self._predictor.start()
        pixels, done = stack_pixels(images), 0
        for call in self._predictor.plan.calls:
            if done >= draws:
                self._predictor.add(running, pixels, call)
            done += call.draws.count if call.draws else 0
        return running.make_prediction(running.combine(), len(images))

    def flush(self) -> Iterator[AnsweredImage]:
        return iter(())


@dataclass
class _Waiting:
    """An image that needs more draws, with its answer so far."""

    image: LoadedImage
    answer: RunningAnswer


class AdaptiveDraws:
    """Adds draws, call by call, to the images whose standard error is above the tolerance.

    Regroups the images that need more draws, so that the engine gets full batches.

    tolerance: for each head the largest standard error of the predictive mean (`combine.standard_error`).
    """

    regroups: ClassVar[bool] = True

    def __init__(self, predictor: Predictor, tolerance: Mapping[str, float]) -> None:
        self._predictor = predictor
        self._tolerance = tolerance
        self._calls = predictor.plan.source.plan_adaptive_calls(predictor.plan.calls)
        self._pools: dict[tuple[int, tuple[int, ...]], list[_Waiting]] = {}

    def push(self, images: list[LoadedImage], last: bool) -> Iterator[AnsweredImage]:
        del last  # more calls follow for some images: keep the graphs loaded
        yield from self._step(0, images, self._predictor.start())
        while self._holds_too_much():
            yield from self._continue(min(self._pools))

    def flush(self) -> Iterator[AnsweredImage]:
        while self._pools:
            yield from self._continue(min(self._pools))

    def _holds_too_much(self) -> bool:
        """Whether the waiting images of free sides take more memory than those that wait for a batch may."""
        if None not in self._predictor.bundle.manifest.input.shape:
            return False
        return sum_bytes(item.image for pool in self._pools.values() for item in pool) > MAX_WAITING_BYTES

    def _continue(self, key: tuple[int, tuple[int, ...]]) -> Iterator[AnsweredImage]:
        waiting = self._pools.pop(key)
        answer = stack_answers([item.answer for item in waiting])
        yield from self._step(key[0], [item.image for item in waiting], answer)

    def _step(self, level: int, images: list[LoadedImage], answer: RunningAnswer) -> Iterator[AnsweredImage]:
        """Makes call number `level` for a batch; yields the images that have enough draws, keeps the others."""
        self._predictor.add(answer, stack_pixels(images), self._calls[level])
        quantities = answer.combine()
        prediction = answer.make_prediction(quantities, len(images))
        enough = np.ones(len(images), bool)
        if level < len(self._calls) - 1:
            for head in self._predictor.bundle.manifest.heads:
                if head.name in self._tolerance:
                    error = standard_error(head.kind, quantities[head.name]["epistemic"], answer.draws)
                    enough &= error <= self._tolerance[head.name]
        for index in np.flatnonzero(enough):
            yield images[index], prediction, int(index)
        for index in np.flatnonzero(~enough):
            image = images[index]
            key = (level + 1, image.pixels.shape if image.pixels is not None else ())
            pool = self._pools.setdefault(key, [])
            pool.append(_Waiting(image, answer.select(np.array([index]))))
            if len(pool) == self._predictor.batch_size:
                yield from self._continue(key)


def stack_pixels(images: list[LoadedImage]) -> npt.NDArray[np.float32]:
    """Returns the images of a batch as one array, [batch, *input.shape]."""
    return np.stack([image.pixels for image in images if image.pixels is not None])


def parse_tolerances(text: str, manifest: Manifest) -> dict[str, float]:
    """Reads `0.01`, for every head, or `digit=0.01,slant=0.02`; UsageError for anything else."""
    names = [head.name for head in manifest.heads]
    tolerances: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        try:
            limit = float(value if equals else name)
        except ValueError:
            limit = -1.0
        if not 0 < limit < np.inf or (equals and name not in names):
            raise UsageError(
                f"--tolerance {text}: a positive number, or HEAD=NUMBER,... with heads of {', '.join(names)}"
            )
        tolerances |= {name: limit} if equals else dict.fromkeys(names, limit)
    return tolerances
