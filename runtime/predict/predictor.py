"""Arrays in, uncertainty out: the graphs of a plan, run chunk by chunk."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import QUANTITIES, FileRecord
from probrt.runtime.engines import Arrays, Graph
from probrt.runtime.errors import Fault, InputError, ProbrtError, one_line
from probrt.runtime.images.decode import Pixels, matches, shown
from probrt.runtime.predict.choose import Plan
from probrt.runtime.predict.combine import Sum

BATCH = 64
BATCH_VALUES = 1 << 20

Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Answer:
    """One head's answer for a batch; None is what the variant cannot know.

    mean: [batch, outputs], [batch, classes], or with the positions after the batch. The others: [batch]
    for categorical heads, else the shape of `mean`; variances, or entropies in nats.
    extra: the head's other outputs by name, [batch, ...].
    """

    mean: Values
    total: Values | None = None
    aleatoric: Values | None = None
    epistemic: Values | None = None
    extra: Mapping[str, Values] = field(default_factory=dict)

    def quantities(self) -> dict[str, Values]:
        """The quantities that are known, by name."""
        four = ((name, getattr(self, name)) for name in QUANTITIES)
        return {name: values for name, values in four if values is not None} | dict(self.extra)


@dataclass(frozen=True)
class Prediction:
    """The answer for a batch: one `Answer` per head, by name; draws: how many each image took, [batch]."""

    heads: Mapping[str, Answer]
    draws: npt.NDArray[np.int32]

    def __getitem__(self, head: str) -> Answer:
        return self.heads[head]

    @cached_property
    def faults(self) -> list[str]:
        """Per image why its answer may not be given, or an empty string: [batch]."""
        found = [""] * len(self.draws)
        for head, answer in self.heads.items():
            for name, values in answer.quantities().items():
                finite = np.isfinite(values).reshape(len(found), -1).all(axis=1)
                for index in np.flatnonzero(~finite):
                    found[index] = found[index] or f"the model's {head}.{name} is not finite for this image"
        return found


class Predictor:
    """Answers for arrays of raw values, [batch, *input.shape] float32.

    Graphs are loaded when they are first needed and then kept, but for the last batch of a run, which
    loads one after another so that one image needs the memory of one chunk.
    """

    def __init__(self, bundle: Bundle, plan: Plan, batch_size: int | None = None, threads: int | None = None) -> None:
        self.bundle = bundle
        self.plan = plan
        self.batch_size = batch_size or best_batch(bundle.manifest.input.shape)
        self.threads = threads or cores()
        self._module = plan.engine.load_module()
        self._graphs: dict[str, Graph] = {}

    def __call__(self, images: npt.ArrayLike) -> Prediction:
        """The prediction for images [batch, *input.shape]; InputError for another shape or values not finite."""
        array = np.ascontiguousarray(images, dtype=np.float32)
        wanted = self.bundle.manifest.input.shape
        if array.ndim != len(wanted) + 1 or not len(array) or not matches(array.shape[1:], wanted):
            raise InputError(f"images of shape {list(array.shape)}; the model takes [batch, {shown(wanted)[1:]}")
        if not np.isfinite(array).all():
            raise InputError("images: hold values that are not finite")
        return joined([self.answer(array[i : i + self.batch_size]) for i in range(0, len(array), self.batch_size)])

    def answer(self, images: Pixels, last: bool = False) -> Prediction:
        """The prediction for one batch; Fault if the engine fails. `last` says that no batch follows."""
        named: Mapping[str, Mapping[str, npt.NDArray[np.floating]]]
        if self.plan.chunk == 0:
            named = self.whole(images, self.plan.samples)
        else:
            sums = [Sum(head) for head in self.bundle.manifest.heads]
            for arrays, draws in self.chunks(images, last):
                for total in sums:
                    total.add(arrays, draws)
            named = {total.head.name: total.answer() for total in sums}
        heads = {head: answer_of(quantities) for head, quantities in named.items()}
        return Prediction(heads, np.full(len(images), self.plan.samples, np.int32))

    def chunks(self, images: Pixels, last: bool = False) -> Iterator[tuple[dict[str, Values], int]]:
        """Each chunk's raw answer and its number of draws, in the order of the draws."""
        for position in range(0, self.plan.samples, self.plan.chunk):
            yield self.chunk(images, position // self.plan.chunk, last), self.plan.chunk

    def chunk(self, images: Pixels, index: int, last: bool = False) -> dict[str, Values]:
        """The raw answer of one chunk of draws."""
        if self.plan.variant == "draws":
            return self._run((self.plan.files[index],), {"images": images}, "serving_default", last)
        start = np.array([index * self.plan.chunk], np.int32)
        inputs = {"images": images, "seed": np.array([self.plan.seed], np.int32), "start": start}
        return self._run(self.plan.files, inputs, "serving_default", last)

    def whole(self, images: Pixels, samples: int) -> Mapping[str, Mapping[str, npt.NDArray[np.floating]]]:
        """One call that answers for all draws, or for the posterior mean: head -> quantity -> values."""
        if samples == 0:
            signature = "mean" if self.plan.engine.format == "savedmodel" else "serving_default"
            arrays = self._run(self.plan.files, {"images": images}, signature)
        else:
            number, seed = np.array([samples], np.int32), np.array([self.plan.seed], np.int32)
            arrays = self._run(self.plan.files, {"images": images, "num_samples": number, "seed": seed}, "sample")
        return {
            head.name: {
                q: arrays[f"{head.name}.{q}"] for q in (*QUANTITIES, *head.extra) if f"{head.name}.{q}" in arrays
            }
            for head in self.bundle.manifest.heads
        }

    def _run(
        self, files: tuple[FileRecord, ...], inputs: Arrays, signature: str, last: bool = False
    ) -> dict[str, Values]:
        key = files[0].path
        graph = self._graphs.get(key)
        if graph is None:
            graph = self._module.load(self.bundle, files, self.plan.device, self.threads)
            if not (last and self.plan.variant == "draws"):
                self._graphs[key] = graph
        try:
            return graph(inputs, signature)
        except ProbrtError:
            raise
        except Exception as error:  # every engine has exceptions of its own
            raise Fault(f"{self.plan.engine.name}: {key} failed: {one_line(error)[:300]}") from error


@np.errstate(over="ignore", invalid="ignore")  # what is not finite becomes an error row
def answer_of(quantities: Mapping[str, npt.NDArray[np.floating]]) -> Answer:
    """One head's answer out of its quantities by name."""
    single = {name: np.asarray(values, np.float32) for name, values in quantities.items()}
    four = {name: single.pop(name) for name in QUANTITIES if name in single}
    return Answer(**four, extra=single)


def best_batch(shape: list[int | None]) -> int:
    """Images per batch that fill an engine without holding more than 4 MB of input."""
    values = int(np.prod([side or 256 for side in shape]))
    return int(np.clip(BATCH_VALUES // values, 1, BATCH))


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def joined(parts: list[Prediction]) -> Prediction:
    """Predictions of consecutive batches as one."""
    if len(parts) == 1:
        return parts[0]
    heads = {
        name: answer_of(
            {q: np.concatenate([p.heads[name].quantities()[q] for p in parts]) for q in answer.quantities()}
        )
        for name, answer in parts[0].heads.items()
    }
    return Prediction(heads, np.concatenate([part.draws for part in parts]))
