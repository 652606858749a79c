"""Runs the graphs of a plan on arrays and combines what they answer."""

import os
import threading

import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.engines.formats import Call
from probrt.runtime.engines.graph import Graph, Outputs
from probrt.runtime.engines.outputs import check_outputs
from probrt.runtime.errors import Fault, InputError, ProbrtError, one_line
from probrt.runtime.images.decode import Pixels, format_shape, matches_shape
from probrt.runtime.predict.answer import Prediction, join_predictions
from probrt.runtime.predict.choose import Plan, PredictRequest, choose
from probrt.runtime.predict.combine import LatestAnswer, combine_chunks
from probrt.runtime.predict.running import RunningAnswer
from probrt.runtime.predict.trial import graph_name, try_graphs

BATCH = 64
BATCH_VALUES = 1 << 20


class Predictor:
    """Answers for arrays of raw values, float32 [batch, *input.shape].

    It tries the graphs of a bundle that nobody vouches for in a process of their own (`trial.py`), loads a graph at its
    first use and keeps it. For the last batch of a run it loads the files of a bank one after another, so that a single
    image needs the memory of one chunk. Several threads may use it at once: the calls of its graphs take turns, because
    not every engine has reentrant ones.
    """

    def __init__(self, bundle: Bundle, plan: Plan, batch_size: int | None = None, threads: int | None = None) -> None:
        self.bundle = bundle
        self.plan = plan
        self.batch_size = batch_size or best_batch(bundle.manifest.input.shape)
        self.threads = threads or cores()
        try_graphs(bundle, plan.engine, plan.source, plan.calls)
        self._graphs: dict[str, Graph] = {}
        self._turn = threading.RLock()

    def with_plan(self, plan: Plan) -> "Predictor":
        """Returns a predictor for another plan of the same engine and device; both share their loaded graphs."""
        other = Predictor(self.bundle, plan, self.batch_size, self.threads)
        other._graphs, other._turn = self._graphs, self._turn
        return other

    def __call__(self, images: npt.ArrayLike) -> Prediction:
        """Returns the prediction for images [batch, *input.shape].

        Raises InputError for another shape and for values that are not finite, Fault if the engine fails.
        """
        array = np.ascontiguousarray(images, dtype=np.float32)
        shape = self.bundle.manifest.input.shape
        if array.ndim != len(shape) + 1 or not len(array) or not matches_shape(array.shape[1:], shape):
            raise InputError(f"images of shape {list(array.shape)}; the model takes [batch, {format_shape(shape)[1:]}")
        if not np.isfinite(array).all():
            raise InputError("images: hold values that are not finite")
        batches = (array[i : i + self.batch_size] for i in range(0, len(array), self.batch_size))
        return join_predictions([self.answer(batch) for batch in batches])

    def answer(self, images: Pixels, last: bool = False) -> Prediction:
        """Returns the prediction for one batch; Fault if the engine fails. `last`: no batch follows."""
        answer = self.start()
        for call in self.plan.calls:
            self.add(answer, images, call, last)
        return answer.make_prediction(answer.combine(), len(images))

    def start(self) -> RunningAnswer:
        """Returns the answer before any call."""
        make_combiner = combine_chunks if self.plan.source.in_chunks else LatestAnswer
        return RunningAnswer([make_combiner(head) for head in self.bundle.manifest.heads])

    def add(self, answer: RunningAnswer, images: Pixels, call: Call, last: bool = False) -> None:
        """Makes one call for a batch and adds its outputs to the answer."""
        answer.add(self.run(images, call, last), call.draws.count if call.draws else 0)

    def load(self) -> None:
        """Checks the files of all calls and loads the first graph, before any work is done.

        Raises BundleError for a damaged bundle.
        """
        first, *others = {call.files[0].path: call for call in self.plan.calls}.values()
        for call in others:
            for file in call.files:
                self.bundle.check(file)
        with self._turn:
            self._load(first, keep=True)

    def _load(self, call: Call, *, keep: bool) -> Graph:
        key = call.files[0].path
        graph = self._graphs.get(key) if keep else self._graphs.pop(key, None)
        if graph is None:
            plan = self.plan
            graph = plan.engine.load_graph(self.bundle, call.files, plan.device, self.threads, plan.precision)
        if keep:
            self._graphs[key] = graph
        return graph

    def run(self, images: Pixels, call: Call, last: bool = False) -> Outputs:
        """Returns the outputs of one call for a batch, checked against the manifest; Fault if the engine fails."""
        with self._turn:
            graph = self._load(call, keep=not (last and self.plan.has_many_graphs))
            try:
                outputs = self.plan.source.run(graph, images, call.draws)
            except ProbrtError:
                raise
            except Exception as error:  # every engine has exceptions of its own
                path = call.files[0].path
                raise Fault(f"{self.plan.engine.name}: {path} failed: {one_line(error)[:300]}") from error
        expected = self.plan.source.expected_outputs(self.bundle.manifest, call)
        check_outputs(graph_name(call.files), expected, outputs, len(images))
        return outputs


def load_predictor(
    bundle: Bundle,
    *,
    samples: int | None = None,
    seed: int | None = None,
    variant: str | None = None,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "float32",
    batch_size: int | None = None,
    threads: int | None = None,
) -> Predictor:
    """Returns a function from images [batch, *input.shape] of raw values to a Prediction.

    None and "auto" leave the choice open, as on the command line. Raises UsageError for a request that the bundle
    cannot honour, MissingError for an engine that is not installed.
    """
    plan = choose(bundle, PredictRequest(samples, seed, variant, engine, device, precision))
    return Predictor(bundle, plan, batch_size, threads)


def best_batch(shape: list[int | None]) -> int:
    """Returns how many images per batch keep an engine busy without more than 4 MB of input."""
    values = int(np.prod([side or 256 for side in shape]))
    return int(np.clip(BATCH_VALUES // values, 1, BATCH))


def cores() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
