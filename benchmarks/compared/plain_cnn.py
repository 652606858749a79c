"""The network that a person writes with Keras alone: convolutions, max-pools, a dense layer, and dropout."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np


def fit_plain_cnn(config: Path, weight_count: int, seconds: float, seed: int) -> tuple[dict[str, np.ndarray], float]:
    """Fits the network on the data and with the augmentation of a probrt config.

    weight_count: the network has about as many weights. seconds: it trains for about so many CPU seconds. Returns the
    class probabilities of the test images, `test` as they are and `tempered` by a temperature of the validation
    images, and the CPU seconds of training.
    """
    import keras
    import tensorflow as tf

    from probrt.trainer import data
    from probrt.trainer.config.config import load_config

    settings = load_config(config)
    splits = data.read_dataset(settings, config.parent).splits
    (head,) = settings.heads
    keras.utils.set_random_seed(seed)
    model = _build(settings.input.shape, head.channels, weight_count)
    batch = settings.fit.batch
    per_epoch = math.ceil(len(splits["train"]) / batch)
    rate, start = 1e-3, time.process_time()
    model.compile(keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    def make_batches(epoch: int) -> tf.data.Dataset:
        steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
        batches = data.training_batches(
            splits["train"],
            batch=batch,
            seed=seed,
            steps=steps,
            augmentation=settings.data,
            heads=[head],
            input=settings.input,
        )
        return batches.map(lambda part: (part["images"], part["targets"][head.name]))

    epoch = 0
    # The rate falls along the same cosine as probrt's, but over time: the number of epochs that fit is unknown.
    while (elapsed := time.process_time() - start) < seconds:
        model.optimizer.learning_rate = rate * 0.5 * (1 + math.cos(math.pi * elapsed / seconds))
        model.fit(make_batches(epoch), verbose=0)
        epoch += 1
    elapsed = time.process_time() - start
    logits = {
        split: model.predict(splits[split].images.astype(np.float32), batch_size=256, verbose=0)
        for split in ("validation", "test")
    }
    temperature = _fit_temperature(logits["validation"], splits["validation"].targets[head.name])
    test = {"test": logits["test"], "tempered": logits["test"] / temperature}
    return {name: tf.nn.softmax(values).numpy() for name, values in test.items()}, elapsed


def _fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the temperature with the lowest NLL (Guo et al. 2017)."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    def nll(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -float(scaled[np.arange(len(labels)), labels].mean())

    return float(np.exp(minimize_scalar(nll, bounds=(-2.0, 4.0), method="bounded").x))


def _build(shape: list[int], classes: int, weight_count: int):
    """Builds 32-64-128 convolutions with max-pools and a dense layer; scales the widths to the number of weights."""
    import keras

    def build(factor: float) -> keras.Model:
        widths = [max(4, round(width * factor)) for width in (32, 64, 128)]
        features = images = keras.Input(shape)
        features = keras.layers.Rescaling(1 / 255)(features)
        for width in widths:
            features = keras.layers.Conv2D(width, 3, padding="same", activation="relu")(features)
            features = keras.layers.MaxPooling2D(2)(features)
        features = keras.layers.Dropout(0.3)(keras.layers.Flatten()(features))
        features = keras.layers.Dense(widths[-1], activation="relu")(features)
        return keras.Model(images, keras.layers.Dense(classes)(keras.layers.Dropout(0.3)(features)))

    factors = np.geomspace(0.1, 4.0, 60)
    return min((build(factor) for factor in factors), key=lambda model: abs(model.count_params() - weight_count))
