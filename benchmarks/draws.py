"""Times 32 draws of an exported bundle against 32 calls of TFP's layers, in one run.

    python benchmarks/draws.py [--rounds 5] [--batches 64 1]

The network has convolutions 32-64-128 (3 x 3) with max-pools, a global mean and 16 classes, on images of 28 x 28 x 1.
The benchmark prints milliseconds per batch (the median over rounds) and two ratios:

* serving: `serving_default` through TensorFlow's C++ loader against N3, TFP's reparameterization layers unrolled 32
  times in one tf.function. At batch 64 it must be at least 1; the aim is 1.5.
* bank: the chunks of the bank on the fastest engine against N1, a tf.function of TFP's Flipout layers, called 32 times.
  It must be at least 3 at batch 64 and 10 at batch 1.

Then it prints novelty's share of an answer on each engine: the time with novelty against the time without. It must be
at most 5 % of 32 draws and 20 % of one pass at the posterior mean. `--novelty` prints this alone.

Then it prints the peak memory of `sample` at batch 64 for several numbers of draws. Each side runs in its own process,
because TFP's layers need the legacy Keras. Rounds alternate between the sides, so that other load slows all of them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

WIDTHS, CLASSES, DRAWS = (32, 64, 128), 16, 32
ENGINES = ("openvino", "litert", "onnxruntime")
Step = Callable[[np.ndarray], object]


def export_network(folder: Path) -> None:
    """Exports the untrained network below `folder`: `net` has novelty, `plain` has none."""
    import dataclasses

    import keras

    from probrt.exporter.export import export
    from probrt.exporter.plan import ExportRequest
    from probrt.runtime.bundle.manifest import Input
    from probrt.trainer import heads, layers, store
    from probrt.trainer.calibration.novelty import add_novelty
    from probrt.trainer.data import Examples
    from probrt.trainer.layers.split import HeadSplit
    from probrt.trainer.model import Model

    images = features = keras.Input((28, 28, 1), name="images")
    for index, width in enumerate(WIDTHS):
        features = layers.Conv2D(width, 3, activation="relu", name=f"conv{index}")(features)
        features = keras.layers.MaxPooling2D(2)(features)
    head = heads.Categorical(name="digit", labels=[str(label) for label in range(CLASSES)])
    split = HeadSplit([(head.name, head.channels, 0)], name="heads")
    outputs = split(layers.Conv2D(split.channels, 1, name="final")(features))
    model = Model(
        "net",
        Input(shape=[28, 28, 1], colour="none", resize="none", range=(-4.0, 4.0)),
        (head,),
        keras.Model(images, outputs, name="network"),
    )
    examples = Examples(tuple(map(str, range(400))), make_images(400), {})
    for name, exported in (("net", add_novelty(model, examples, examples, seed=0)), ("plain", model)):
        exported = dataclasses.replace(exported, name=name)
        store.save_model(exported, folder / f"model_{name}", images=make_images(64), provenance={})
        export(folder / f"model_{name}", folder, ExportRequest(draws=DRAWS, select=False))


def make_images(size: int) -> np.ndarray:
    """Makes random images [size, 28, 28, 1]."""
    return np.random.default_rng(0).normal(size=(size, 28, 28, 1)).clip(-4, 4).astype(np.float32)


def load_serving(folder: Path) -> Step:
    """Loads `serving_default` with the C++ loader."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from loader import SavedModelSession

    session = SavedModelSession(folder / "net" / "1")
    return lambda images: session("serving_default", {"images": images})


def load_bank(folder: Path, engine: str) -> Step:
    """Loads the bank with one engine."""
    from probrt.runtime import Bundle, load_predictor

    return load_predictor(Bundle.open(folder / "net"), engine=engine, variant="draws", samples=DRAWS, batch_size=64)


def print_novelty_share(folder: Path, rounds: int, batches: list[int]) -> None:
    """Prints novelty's share of an answer, per engine, variant and batch size: the median over alternating rounds."""
    from probrt.runtime import Bundle, load_predictor

    for engine in ENGINES:
        for variant, more in (("draws", {"samples": DRAWS}), ("mean", {})):
            with_novelty, plain = (
                load_predictor(Bundle.open(folder / name), engine=engine, variant=variant, batch_size=64, **more)
                for name in ("net", "plain")
            )
            for batch in batches:
                images = make_images(batch)
                ratios = []
                for _ in range(2 * rounds):
                    seconds = [time_step(step, images) for step in (with_novelty, plain, with_novelty, plain)]
                    ratios.append((seconds[0] + seconds[2]) / (seconds[1] + seconds[3]) - 1)
                print(f"novelty on {engine}, {variant}, batch {batch}: {statistics.median(ratios):+.1%}", flush=True)


def time_step(step: Step, images: np.ndarray) -> float:
    """Returns the seconds of a call, over a fifth of a second of calls."""
    step(images)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < 0.2 or count < 2:
        step(images)
        count += 1
    return (time.perf_counter() - start) / count


def build_tfp(layer: str, unrolled: bool) -> Step:
    """Builds the network of TFP's layers for 32 draws, unrolled in one tf.function or with one call of it per draw."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow as tf
    import tensorflow_probability as tfp
    import tf_keras

    kind = getattr(tfp.layers, layer)
    stack = []
    for width in WIDTHS:
        stack += [kind(width, 3, padding="same", activation="relu"), tf_keras.layers.MaxPooling2D(2)]
    stack += [tf_keras.layers.GlobalAveragePooling2D(keepdims=True), kind(CLASSES, 1), tf_keras.layers.Flatten()]
    model = tf_keras.Sequential(stack)
    model(make_images(1))

    def combine(probabilities):
        mean = tf.add_n(probabilities) / float(DRAWS)
        entropies = [-tf.reduce_sum(p * tf.math.log(p + 1e-30), -1) for p in probabilities]
        aleatoric = tf.add_n(entropies) / float(DRAWS)
        total = -tf.reduce_sum(mean * tf.math.log(mean + 1e-30), -1)
        return mean, total, aleatoric, total - aleatoric

    if unrolled:
        all_draws = tf.function(lambda images: combine([tf.nn.softmax(model(images)) for _ in range(DRAWS)]))
        return lambda images: [output.numpy() for output in all_draws(tf.constant(images))]
    one_draw = tf.function(lambda images: tf.nn.softmax(model(images)))
    return lambda images: [output.numpy() for output in combine([one_draw(tf.constant(images)) for _ in range(DRAWS)])]


def run_worker(side: str, folder: Path) -> None:
    """Reads batch sizes from stdin and prints the milliseconds of a batch for each."""
    if side == "N1":
        step = build_tfp("Convolution2DFlipout", unrolled=False)
    elif side == "N3":
        step = build_tfp("Convolution2DReparameterization", unrolled=True)
    else:
        step = load_serving(folder) if side == "serving" else load_bank(folder, side)
    print("ready", flush=True)
    warm_sizes = set()
    for line in sys.stdin:
        images = make_images(int(line))
        if len(images) not in warm_sizes:
            step(images)
            warm_sizes.add(len(images))
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < 1.0 or count < 2:
            step(images)
            count += 1
        print((time.perf_counter() - start) / count * 1e3, flush=True)


def print_memory(folder: Path, draws: int) -> None:
    """Prints the peak resident memory, in MB, of `sample` with this number of draws at batch 64."""
    import resource

    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from loader import SavedModelSession

    session = SavedModelSession(folder / "net" / "1")
    session("sample", {"images": make_images(64), "num_samples": np.array([draws], np.int32)})
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def main() -> None:
    """Exports the network, times all sides in turn and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 1])
    parser.add_argument("--novelty", action="store_true", help="only print novelty's share")
    parser.add_argument("--worker")
    parser.add_argument("--memory", type=int)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.worker:
        run_worker(options.worker, options.folder)
    elif options.memory:
        print_memory(options.folder, options.memory)
    else:
        with tempfile.TemporaryDirectory() as folder:
            export_network(Path(folder))
            if not options.novelty:
                compare(Path(folder), options.rounds, options.batches)
            print_novelty_share(Path(folder), options.rounds, options.batches)


def compare(folder: Path, rounds: int, batches: list[int]) -> None:
    """Starts a process per side, times the sides in turn and prints the results."""
    command = [sys.executable, __file__, "--folder", str(folder)]
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    sides = {
        side: subprocess.Popen(
            [*command, "--worker", side],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=quiet,
        )
        for side in ("serving", *ENGINES, "N1", "N3")
    }
    for process in sides.values():
        process.stdout.readline()
    for batch in batches:
        times: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(rounds):
            for side, process in sides.items():
                process.stdin.write(f"{batch}\n")
                process.stdin.flush()
                times[side].append(float(process.stdout.readline()))
        median = {side: statistics.median(values) for side, values in times.items()}
        best = min(ENGINES, key=lambda engine: median[engine])
        print(f"batch {batch}, ms: " + ", ".join(f"{side} {value:.1f}" for side, value in median.items()))
        print(f"  serving_default is {median['N3'] / median['serving']:.2f} times as fast as N3")
        print(f"  the bank on {best} is {median['N1'] / median[best]:.2f} times as fast as N1")
    for process in sides.values():
        process.stdin.close()
        process.wait()
    for draws in (8, 64, 512, 1024):
        process = subprocess.run(
            [*command, "--memory", str(draws)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=quiet
        )
        print(f"sample, batch 64, {draws} draws: peak {process.stdout.strip()} MB")


if __name__ == "__main__":
    main()
