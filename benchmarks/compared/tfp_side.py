"""A side of the speed benchmarks: TFP's layers on legacy Keras.

    python tfp_side.py CLASS unrolled|calls SECONDS [SIDE [WIDTH …]]

CLASS: of tfp.layers, such as Convolution2DFlipout. unrolled: all draws in one tf.function; calls: one call of a
tf.function per draw. It answers `draws-N`. SIDE: of the images, 28 by default; WIDTH: the filters of each stage.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from compared.digits_network import CLASSES, WIDTHS
from compared.sides import Step, serve


def load_steps(layer: str, unrolled: bool, side: int, widths: tuple[int, ...]) -> dict[str, Step]:
    """Builds the network and a function per number of draws."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow as tf
    import tensorflow_probability as tfp
    import tf_keras

    kind = getattr(tfp.layers, layer)
    stack = []
    for width in widths:
        stack += [kind(width, 3, padding="same", activation="relu"), tf_keras.layers.MaxPooling2D(2)]
    stack += [tf_keras.layers.GlobalAveragePooling2D(keepdims=True), kind(CLASSES, 1), tf_keras.layers.Flatten()]
    model = tf_keras.Sequential(stack)
    images = np.random.default_rng(0).normal(size=(1024, side, side, 1)).astype(np.float32)
    model(images[:1])

    def combine(probabilities):
        mean = tf.add_n(probabilities) / float(len(probabilities))
        entropies = [-tf.reduce_sum(p * tf.math.log(p + 1e-30), -1) for p in probabilities]
        aleatoric = tf.add_n(entropies) / float(len(probabilities))
        total = -tf.reduce_sum(mean * tf.math.log(mean + 1e-30), -1)
        return mean, total, aleatoric, total - aleatoric

    one_draw = tf.function(lambda images: tf.nn.softmax(model(images)))

    def make_step(draws: int) -> Step:
        if unrolled:
            all_draws = tf.function(lambda images: combine([tf.nn.softmax(model(images)) for _ in range(draws)]))
            return lambda size: [output.numpy() for output in all_draws(tf.constant(images[:size]))]
        return lambda size: [
            output.numpy() for output in combine([one_draw(tf.constant(images[:size])) for _ in range(draws)])
        ]

    return {f"draws-{draws}": make_step(draws) for draws in (1, 8, 16, 32, 128)}


if __name__ == "__main__":
    layer, form, seconds, side, *widths = [*sys.argv[1:], *(["28"] if len(sys.argv) == 4 else [])]
    serve(load_steps(layer, form == "unrolled", int(side), tuple(map(int, widths)) or WIDTHS), float(seconds))
