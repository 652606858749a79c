"""Prints novelty's share of an answer, on each engine: the time with novelty against the time without.

    python benchmarks/novelty_share.py [--rounds 10] [--batches 64 1]

It must be at most 5 % of 32 draws and 20 % of one pass at the posterior mean. The network has convolutions 32-64-128 on
images of 28 x 28, with the weights it begins with. The time is that of the clock, the median over alternating rounds;
it needs an idle machine.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from compared.digits_network import DRAWS, WIDTHS
from compared.untrained_network import export_untrained_network, make_pictures

ENGINES = ("openvino", "litert", "onnxruntime")
VARIANTS: dict[str, dict[str, int]] = {"draws": {"samples": DRAWS}, "mean": {}}


def time_step(step: Callable[[np.ndarray], object], images: np.ndarray) -> float:
    """Returns the seconds of a call, over a fifth of a second of calls."""
    step(images)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < 0.2 or count < 2:
        step(images)
        count += 1
    return (time.perf_counter() - start) / count


def main() -> None:
    """Exports the network with novelty and without, times both in turn and prints the shares."""
    from probrt.runtime import Bundle, load_predictor

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 1])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bundles = [
            Bundle.open(export_untrained_network(Path(scratch), 28, WIDTHS, novelty=novelty))
            for novelty in (True, False)
        ]
        for engine in ENGINES:
            for variant, more in VARIANTS.items():
                with_novelty, plain = (
                    load_predictor(bundle, engine=engine, variant=variant, batch_size=64, **more) for bundle in bundles
                )
                for batch in options.batches:
                    images = make_pictures(batch, 28)
                    shares = []
                    for _ in range(options.rounds):
                        seconds = [time_step(step, images) for step in (with_novelty, plain, with_novelty, plain)]
                        shares.append((seconds[0] + seconds[2]) / (seconds[1] + seconds[3]) - 1)
                    print(f"{engine}, {variant}, batch {batch}: {statistics.median(shares):+.1%}", flush=True)


if __name__ == "__main__":
    main()
