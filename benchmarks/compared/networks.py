"""One trunk, LeNet-5 (LeCun et al. 1998) with WIDTH times the filters, and the ways to fit it and to draw from it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from compared.pictures import SEED

from probrt.trainer.variational.handlers import DrawHandler, MeanHandler, use_handler

DRAWS, MEMBERS, BATCH, WIDTH, RATE = 32, 5, 64, 2, 2e-3
LABELS = [str(digit) for digit in range(10)]
# From images to the class probabilities of each draw, [draws, n, 10].
Answer = Callable[[np.ndarray], np.ndarray]


def augmentation():
    """The same for every method."""
    from probrt.trainer.config.settings import Augmentation

    return Augmentation(shift=2, rotate=12.0, zoom=0.12)


def described() -> tuple:
    """The head and the input, for the batches."""
    from probrt.runtime.bundle.manifest import Input
    from probrt.trainer import heads

    input = Input(shape=[28, 28, 1], colour="grey", resize="none", range=(0.0, 255.0))
    return heads.Categorical(name="digit", labels=LABELS), input


def lenet(dropout: float = 0.0, **families):
    """LeNet-5's trunk with WIDTH times the filters; `families` are settings of probrt's layers."""
    import keras

    from probrt.trainer import layers
    from probrt.trainer.layers.dropout import ChannelDropout
    from probrt.trainer.layers.split import HeadSplit
    from probrt.trainer.model import Model

    head, input = described()
    images = keras.Input(input.shape, name="images")
    x = keras.layers.Rescaling(1 / 255, name="unit")(images)
    for number, filters in enumerate((6 * WIDTH, 16 * WIDTH), start=1):
        padding = "same" if number == 1 else "valid"
        x = layers.Conv2D(filters, 5, padding=padding, activation="relu", name=f"conv{number}", **families)(x)
        x = keras.layers.MaxPooling2D(2, name=f"pool{number}")(x)
        if dropout:
            x = ChannelDropout(dropout, in_draws=True, name=f"conv{number}_dropout")(x)
    x = keras.layers.Flatten(name="flat")(x)
    for units in (120 * WIDTH // 2, 84 * WIDTH // 2):
        x = layers.Dense(units, activation="relu", name=f"dense{units}", **families)(x)
        if dropout:
            x = ChannelDropout(dropout, in_draws=True, name=f"dense{units}_dropout")(x)
    x = layers.Dense(len(LABELS), name="final", **families)(x)
    outputs = HeadSplit([(head.name, head.channels, 0)], name="heads")(x)
    return Model("lenet", input, (head,), keras.Model(images, outputs, name="network"))


def fitted(seed: int, train, validation, epochs: int, kl_weight: float = 0.0, dropout: float = 0.0, **families):
    """A fitted model."""
    import keras

    from probrt.trainer.config.settings import FitSettings
    from probrt.trainer.fit.loop import Run, fit

    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = lenet(dropout, **families)
    settings = FitSettings(epochs=epochs, batch=BATCH, learning_rate=RATE, kl_weight=kl_weight, kl_warmup=0.2)
    for _ in fit(model, train, validation, settings, Run(seed=seed, augmentation=augmentation())):
        pass
    return model


def drawn(model, images: np.ndarray, draws: int) -> np.ndarray:
    """Class probabilities of each draw, [draws, n, 10]; at the mean for 0 draws."""
    import tensorflow as tf

    @tf.function(autograph=False)
    def at(batch, index):
        with use_handler(DrawHandler(SEED, index) if draws else MeanHandler()):
            return tf.nn.softmax(model.channels(batch)["digit"])

    parts = np.array_split(images.astype(np.float32), max(1, len(images) // 500))
    return np.stack(
        [np.concatenate([at(part, tf.constant(index)).numpy() for part in parts]) for index in range(max(1, draws))]
    )


def ensemble(train, validation, epochs: int, fold: int) -> Answer:
    models = [fitted(fold + 100 * n, train, validation, epochs, kernel_posterior=None) for n in range(MEMBERS)]
    return lambda images: np.concatenate([drawn(model, images, 0) for model in models])


def mc_dropout(train, validation, epochs: int, fold: int) -> Answer:
    model = fitted(fold, train, validation, epochs, dropout=0.2, kernel_posterior=None)
    return lambda images: drawn(model, images, DRAWS)


def bayesian(kl_weight: float, dropout: float = 0.0, **families) -> Callable[..., Answer]:
    """The method of random weights at a weight of the KL divergence; `families` are settings of probrt's layers.

    dropout: of channels, in every draw, besides.
    """

    def method(train, validation, epochs: int, fold: int) -> Answer:
        model = fitted(fold, train, validation, epochs, kl_weight, dropout, estimator="auto", **families)
        return lambda images: drawn(model, images, DRAWS)

    return method
