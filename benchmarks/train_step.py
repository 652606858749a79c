"""Times training steps with probrt's estimators against one with TFP's Convolution2DFlipout.

    python benchmarks/train_step.py [--batch 64] [--rounds 11] [--steps 20]

Prints the milliseconds per step of Flipout and of IVON in probrt and of TFP's Flipout (the median over rounds of the
mean over a round's steps), and their ratios. The aims are at most 1 for Flipout, and at most 0.65 for IVON, which
computes each convolution once. Each side runs in its own process, because TFP's layers need the legacy Keras. Rounds
alternate between the sides, so that other load slows all of them. The network has convolutions 32-64-128 (3 x 3) with
max-pools, a global mean and 16 outputs, on images of 28 x 28 x 1. It is trained on cross-entropy + KL / 1000, by Adam
but for IVON's kernels.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

WIDTHS, CLASSES = (32, 64, 128), 16
SIDES = ("flipout", "ivon", "tfp")


def build_probrt_step(batch: int, estimator: str = "flipout"):
    """Returns a function that runs one training step with probrt's layers and an estimator."""
    import keras
    import tensorflow as tf

    from probrt.trainer import layers
    from probrt.trainer.config.settings import FitSettings
    from probrt.trainer.fit.ivon import Ivon
    from probrt.trainer.variational.estimators import TrainingHandler
    from probrt.trainer.variational.handlers import use_handler
    from probrt.trainer.variational.priors.families import NormalPrior
    from probrt.trainer.variational.random_weight import find_random_weights

    images = features = keras.Input((28, 28, 1))
    for width in WIDTHS:
        features = layers.Conv2D(width, 3, activation="relu", estimator=estimator, kernel_prior=NormalPrior())(features)
        features = keras.layers.MaxPooling2D(2)(features)
    features = keras.layers.GlobalAveragePooling2D(keepdims=True)(features)
    outputs = layers.Conv2D(CLASSES, 1, estimator=estimator, kernel_prior=NormalPrior())(features)
    model = keras.Model(images, keras.layers.Flatten()(outputs))
    weights = find_random_weights(model) if estimator == "ivon" else []
    pairs = [weight.parameters[name] for weight in weights for name in ("loc", "rho")]
    others = [variable for variable in model.trainable_variables if id(variable) not in {id(pair) for pair in pairs}]
    ivon = Ivon(weights, lambda step: 1e-3, FitSettings(kl_weight=1.0), count=1000, steps=1000)
    optimizer = keras.optimizers.Adam(1e-3)
    optimizer.build(others)
    x, y = _make_data(batch)

    @tf.function(autograph=False)
    def step(index):
        with tf.GradientTape() as tape, use_handler(TrainingHandler(0, index)) as handler:
            logits = model(x, training=True)
            kl = tf.add_n([handler.kl(weight) for weight in find_random_weights(model)])
            kl = tf.stop_gradient(kl) if weights else kl
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)) + kl / 1000.0
        gradients = tape.gradient(loss, [variable.value for variable in [*pairs, *others]])
        ivon.apply(gradients[: len(pairs)], pairs)
        optimizer.apply(gradients[len(pairs) :], others)
        return loss

    return step


def build_tfp_step(batch: int):
    """Returns a function that runs one training step with TFP's layers."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow as tf
    import tensorflow_probability as tfp
    import tf_keras

    stack = []
    for width in WIDTHS:
        stack.append(tfp.layers.Convolution2DFlipout(width, 3, padding="same", activation="relu"))
        stack.append(tf_keras.layers.MaxPooling2D(2))
    stack.append(tf_keras.layers.GlobalAveragePooling2D(keepdims=True))
    stack += [tfp.layers.Convolution2DFlipout(CLASSES, 1), tf_keras.layers.Flatten()]
    model = tf_keras.Sequential(stack)
    x, y = _make_data(batch)
    model(x)
    optimizer = tf_keras.optimizers.Adam(1e-3)
    optimizer.build(model.trainable_variables)

    @tf.function(autograph=False)
    def step(index):
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            kl = tf.add_n(model.losses)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)) + kl / 1000.0
        optimizer.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables))  # noqa: B905
        return loss

    return step


def _make_data(batch: int):
    import tensorflow as tf

    return tf.random.stateless_normal((batch, 28, 28, 1), [1, 2]), tf.range(batch) % CLASSES


def run_worker(side: str, batch: int, steps: int) -> None:
    """Runs a round of steps for each line on stdin and prints its milliseconds per step."""
    import tensorflow as tf

    step = build_tfp_step(batch) if side == "tfp" else build_probrt_step(batch, side)
    index = 0
    for _ in range(5):
        step(tf.constant(index))
        index += 1
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        for _ in range(steps):
            step(tf.constant(index)).numpy()
            index += 1
        print((time.perf_counter() - start) / steps * 1e3, flush=True)


def measure_steps(batch: int, rounds: int, steps: int) -> dict[str, float]:
    """Returns the milliseconds of a training step on each side: the median over rounds of so many steps."""
    command = [sys.executable, __file__, "--batch", str(batch), "--steps", str(steps), "--worker"]
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    sides = {
        side: subprocess.Popen(
            [*command, side],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=quiet,
        )
        for side in SIDES
    }
    times: dict[str, list[float]] = {side: [] for side in sides}
    for process in sides.values():
        process.stdout.readline()
    for _ in range(rounds):
        for side, process in sides.items():
            process.stdin.write("\n")
            process.stdin.flush()
            times[side].append(float(process.stdout.readline()))
    for process in sides.values():
        process.stdin.close()
        process.wait()
    return {side: statistics.median(values) for side, values in times.items()}


def main() -> None:
    """Runs both sides and prints the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--worker", choices=SIDES)
    options = parser.parse_args()
    if options.worker:
        run_worker(options.worker, options.batch, options.steps)
        return
    median = measure_steps(options.batch, options.rounds, options.steps)
    for side in SIDES:
        ratio = median[side] / median["tfp"]
        print(f"batch {options.batch}, {side}: {median[side]:.1f} ms per training step, ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
