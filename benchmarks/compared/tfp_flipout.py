"""The same trunk of tfp.layers, fitted alike; needs TF_USE_LEGACY_KERAS, so a process of its own."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from compared.networks import BATCH, DRAWS, LABELS, RATE, WIDTH, Answer, augmentation, described


def tfp_flipout(kl_weight: float) -> Callable[..., Answer]:
    """The method at a weight of the KL divergence."""
    return lambda train, validation, epochs, fold: _fitted(train, epochs, fold, kl_weight)


def _fitted(train, epochs: int, fold: int, kl_weight: float) -> Answer:
    import tensorflow as tf
    import tensorflow_probability as tfp
    import tf_keras

    from probrt.trainer import data

    conv, dense = tfp.layers.Convolution2DFlipout, tfp.layers.DenseFlipout
    tf_keras.utils.set_random_seed(fold)
    model = tf_keras.Sequential(
        [
            tf_keras.layers.Rescaling(1 / 255, input_shape=(28, 28, 1)),
            conv(6 * WIDTH, 5, padding="same", activation="relu"),
            tf_keras.layers.MaxPooling2D(2),
            conv(16 * WIDTH, 5, activation="relu"),
            tf_keras.layers.MaxPooling2D(2),
            tf_keras.layers.Flatten(),
            dense(120 * WIDTH // 2, activation="relu"),
            dense(84 * WIDTH // 2, activation="relu"),
            dense(len(LABELS)),
        ]
    )
    per_epoch = math.ceil(len(train) / BATCH)
    steps = per_epoch * epochs
    warmup = round(0.05 * steps)
    optimizer = tf_keras.optimizers.Adam(
        tf_keras.optimizers.schedules.CosineDecay(0.0, steps - warmup, warmup_target=RATE, warmup_steps=warmup)
    )

    @tf.function(autograph=False, reduce_retracing=True)
    def step(images, labels, number):
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            risen = tf.minimum(1.0, tf.cast(number + 1, tf.float32) / (0.2 * steps))
            nll = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(nll) + kl_weight * risen * tf.add_n(model.losses) / len(train)
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, model.trainable_variables), 10.0)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    head, input = described()
    for number, one in enumerate(data.batches(train, BATCH, fold, augmentation(), [head], input, range(steps))):
        step(one["images"], one["targets"]["digit"], tf.constant(number))
    at = tf.function(lambda images: tf.nn.softmax(model(images)), autograph=False)

    def answer(images: np.ndarray) -> np.ndarray:
        # One draw for the whole set: a call of Flipout draws once, with signs per example.
        return np.stack([at(tf.constant(images, tf.float32)).numpy() for _ in range(DRAWS)])

    return answer
