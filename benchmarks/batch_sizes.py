"""Compares the predictor's time at many batch sizes, met in any order, with that of engines that meet one size only.

    python benchmarks/batch_sizes.py BUNDLE [--sizes 1 2 3 5 8 13 21 33 48 64] [--rounds 9] [--engines openvino litert]

Bare is a graph per size, loaded anew, that never meets another one. The predictor is one per engine and meets the sizes
in random order. The benchmark prints the processor time of a call, the median over rounds in which both sides take
turns, and their ratio, which must be at most 1.3. Other processes do not count in processor time.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from probrt.runtime import Bundle, load_predictor
from probrt.runtime.commands.sample_images import sample_images
from probrt.runtime.engines.formats import Call
from probrt.runtime.engines.graph import Graph
from probrt.runtime.predict.predictor import Predictor

WARM_ROUNDS = 3


def load_bare(predictor: Predictor) -> list[tuple[Call, Graph]]:
    """Loads the graph of each call of a plan, apart from the predictor's own."""
    plan = predictor.plan
    return [
        (call, plan.engine.load_graph(predictor.bundle, call.files, plan.device, predictor.threads))
        for call in plan.calls
    ]


def measure(function: Callable[[], object]) -> float:
    """Returns the processor time of a call in milliseconds."""
    start = time.process_time()
    function()
    return (time.process_time() - start) * 1e3


def compare(bundle: Bundle, engine: str, sizes: list[int], rounds: int) -> None:
    """Prints a line per batch size of one engine."""
    predictor = load_predictor(bundle, engine=engine, batch_size=max(sizes))
    images = sample_images(bundle.manifest, max(sizes))
    bare = {size: load_bare(predictor) for size in sizes}
    times: dict[tuple[str, int], list[float]] = {}
    order = random.Random(0)
    for turn in range(rounds + WARM_ROUNDS):
        for size in order.sample(sizes, len(sizes)):
            batch = images[:size]

            def run_bare(batch: np.ndarray = batch, size: int = size) -> None:
                for call, graph in bare[size]:
                    predictor.plan.source.run(graph, batch, call.draws)

            def run_predictor(batch: np.ndarray = batch) -> None:
                predictor.answer(batch)

            for side, function in (("bare", run_bare), ("predictor", run_predictor)):
                milliseconds = measure(function)
                if turn >= WARM_ROUNDS:  # the first ones load and compile
                    times.setdefault((side, size), []).append(milliseconds)
    for size in sizes:
        bare_ms, predictor_ms = (statistics.median(times[side, size]) for side in ("bare", "predictor"))
        ratio = predictor_ms / bare_ms
        print(
            f"{engine:12} batch {size:3}  bare {bare_ms:8.2f}  predictor {predictor_ms:8.2f} ms  {ratio:.2f}",
            flush=True,
        )


def main() -> None:
    """Compares every engine that is named."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", nargs="?", type=Path, default=Path("artifacts/digits"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 3, 5, 8, 13, 21, 33, 48, 64])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--engines", nargs="+", default=["openvino", "litert", "onnxruntime", "tensorflow"])
    options = parser.parse_args()
    bundle = Bundle.open(options.bundle)
    for engine in options.engines:
        compare(bundle, engine, options.sizes, options.rounds)


if __name__ == "__main__":
    main()
