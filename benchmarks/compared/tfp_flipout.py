"""The same network of tfp.layers, fitted with the same settings. Needs a process with TF_USE_LEGACY_KERAS."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from compared.networks import (
    BATCH,
    DRAWS,
    LABELS,
    RATE,
    WIDTH,
    PredictDraws,
    make_augmentation,
    make_head_and_input,
)


def tfp_flipout(kl_weight: float) -> Callable[..., PredictDraws]:
    """Returns a function that fits the network with this weight of the KL divergence in the loss."""
    return lambda train, validation, epochs, fold: _fit(train, epochs, fold, kl_weight)


def _fit(train, epochs: int, fold: int, kl_weight: float) -> PredictDraws:
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
    def step(images, labels, index):
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            warmup_factor = tf.minimum(1.0, tf.cast(index + 1, tf.float32) / (0.2 * steps))
            nll = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(nll) + kl_weight * warmup_factor * tf.add_n(model.losses) / len(train)
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, model.trainable_variables), 10.0)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    head, input = make_head_and_input()
    batches = data.training_batches(
        train,
        batch=BATCH,
        seed=fold,
        steps=range(steps),
        augmentation=make_augmentation(),
        heads=[head],
        input=input,
    )
    for index, batch in enumerate(batches):
        step(batch["images"], batch["targets"]["digit"], tf.constant(index))
    probabilities = tf.function(lambda images: tf.nn.softmax(model(images)), autograph=False)

    def predict_draws(images: np.ndarray) -> np.ndarray:
        # One call for all images: Flipout takes one draw per call, with signs per image.
        return np.stack([probabilities(tf.constant(images, tf.float32)).numpy() for _ in range(DRAWS)])

    return predict_draws
