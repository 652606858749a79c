"""32 draws with what is exported, against TFP's layers called 32 times, in one run.

    python benchmarks/draws.py [--rounds 5] [--batches 64 1]

Net: conv 32-64-128 (3 x 3) with max-pools, global mean, 16 classes, images 28 x 28 x 1. Prints milliseconds per
batch (the median over rounds) and ratios:

* serving: `serving_default` through TensorFlow's C++ loader against N3, TFP's reparameterization layers unrolled 32
  times in one tf.function; at batch 64 it has to be at least 1, the aim is 1.5;
* bank: the chunks of the bank on the fastest engine against N1, TFP's Flipout layers in a tf.function that is called
  32 times; at least 3 at batch 64, 10 at batch 1.

Then the peak memory of `sample` at batch 64 for growing numbers of draws. Each side runs in a process of its own,
because TFP's layers need the legacy Keras; rounds alternate, so that a busy machine slows all alike.
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


def export_net(folder: Path) -> None:
    """Exports the net, untrained, as a bundle below `folder`."""
    import keras

    from probrt.exporter.export import ExportRequest, export
    from probrt.runtime.bundle.manifest import Input
    from probrt.trainer import heads, layers, store
    from probrt.trainer.layers.split import HeadSplit
    from probrt.trainer.model import Model

    images = features = keras.Input((28, 28, 1), name="images")
    for number, width in enumerate(WIDTHS):
        features = layers.Conv2D(width, 3, activation="relu", name=f"conv{number}")(features)
        features = keras.layers.MaxPooling2D(2)(features)
    head = heads.Categorical(name="digit", labels=[str(one) for one in range(CLASSES)])
    split = HeadSplit([(head.name, head.channels, 0)], name="heads")
    outputs = split(layers.Conv2D(split.channels, 1, name="final")(features))
    model = Model(
        "net",
        Input(shape=[28, 28, 1], colour="none", resize="none", range=(-4.0, 4.0)),
        (head,),
        keras.Model(images, outputs, name="network"),
    )
    store.save(model, folder / "model", batch_of(64), {})
    export(folder / "model", folder, ExportRequest(draws=DRAWS, select=False))


def batch_of(size: int) -> np.ndarray:
    """Random images [size, 28, 28, 1]."""
    return np.random.default_rng(0).normal(size=(size, 28, 28, 1)).clip(-4, 4).astype(np.float32)


def serving(folder: Path) -> Step:
    """`serving_default` through the C++ loader."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from loader import Loaded

    loaded = Loaded(folder / "net" / "1")
    return lambda images: loaded("serving_default", {"images": images})


def bank(folder: Path, engine: str) -> Step:
    """The bank on one engine."""
    from probrt.runtime.bundle.bundle import Bundle

    return Bundle.open(folder / "net").predictor(engine=engine, variant="draws", samples=DRAWS, batch_size=64)


def tfp(layer: str, unrolled: bool) -> Step:
    """TFP's layers, 32 times: unrolled in one tf.function, or a tf.function called again and again."""
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
    model(batch_of(1))

    def answer(probabilities):
        mean = tf.add_n(probabilities) / float(DRAWS)
        entropies = [-tf.reduce_sum(p * tf.math.log(p + 1e-30), -1) for p in probabilities]
        aleatoric = tf.add_n(entropies) / float(DRAWS)
        total = -tf.reduce_sum(mean * tf.math.log(mean + 1e-30), -1)
        return mean, total, aleatoric, total - aleatoric

    if unrolled:
        whole = tf.function(lambda images: answer([tf.nn.softmax(model(images)) for _ in range(DRAWS)]))
        return lambda images: [one.numpy() for one in whole(tf.constant(images))]
    once = tf.function(lambda images: tf.nn.softmax(model(images)))
    return lambda images: [one.numpy() for one in answer([once(tf.constant(images)) for _ in range(DRAWS)])]


def worker(side: str, folder: Path) -> None:
    """Answers each batch size on stdin with the milliseconds of one batch."""
    if side == "N1":
        step = tfp("Convolution2DFlipout", unrolled=False)
    elif side == "N3":
        step = tfp("Convolution2DReparameterization", unrolled=True)
    else:
        step = serving(folder) if side == "serving" else bank(folder, side)
    print("ready", flush=True)
    seen = set()
    for line in sys.stdin:
        images = batch_of(int(line))
        if len(images) not in seen:
            step(images)
            seen.add(len(images))
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < 1.0 or count < 2:
            step(images)
            count += 1
        print((time.perf_counter() - start) / count * 1e3, flush=True)


def memory(folder: Path, draws: int) -> None:
    """Prints the peak resident memory, in MB, of `sample` with so many draws at batch 64."""
    import resource

    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from loader import Loaded

    loaded = Loaded(folder / "net" / "1")
    loaded("sample", {"images": batch_of(64), "num_samples": np.array([draws], np.int32)})
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def main() -> None:
    """Exports the net, times all sides in turn and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 1])
    parser.add_argument("--worker")
    parser.add_argument("--memory", type=int)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.folder)
    elif options.memory:
        memory(options.folder, options.memory)
    else:
        with tempfile.TemporaryDirectory() as folder:
            export_net(Path(folder))
            compare(Path(folder), options.rounds, options.batches)


def compare(folder: Path, rounds: int, batches: list[int]) -> None:
    """Starts a process per side, times them in turn, and prints the tables."""
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
        median = {side: statistics.median(each) for side, each in times.items()}
        best = min(ENGINES, key=lambda engine: median[engine])
        print(f"batch {batch}, ms: " + ", ".join(f"{side} {value:.1f}" for side, value in median.items()))
        print(f"  serving_default is {median['N3'] / median['serving']:.2f} times as fast as N3")
        print(f"  the bank on {best} is {median['N1'] / median[best]:.2f} times as fast as N1")
    for process in sides.values():
        process.stdin.close()
        process.wait()
    for draws in (8, 64, 512, 1024):
        ran = subprocess.run(
            [*command, "--memory", str(draws)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=quiet
        )
        print(f"sample, batch 64, {draws} draws: peak {ran.stdout.strip()} MB")


if __name__ == "__main__":
    main()
