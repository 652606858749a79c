"""LeNet-5 (LeCun et al. 1998) with WIDTH times the filters, and the ways to fit it and to predict with its draws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from compared.pictures import SEED

from probrt.trainer.variational.handlers import DrawHandler, MeanHandler, use_handler

DRAWS, MEMBERS, BATCH, WIDTH, RATE = 32, 5, 64, 2, 2e-3
ESTIMATOR = "flipout"
LABELS = [str(digit) for digit in range(10)]
# Computes the class probabilities of each draw, [draws, images, 10], from images.
PredictDraws = Callable[[np.ndarray], np.ndarray]


def make_augmentation():
    """Returns the augmentation of every method."""
    from probrt.trainer.config.settings import Augmentation

    return Augmentation(shift=2, rotate=12.0, zoom=0.12)


def make_head_and_input() -> tuple:
    """Returns the head and the input of every network."""
    from probrt.runtime.bundle.manifest import Input
    from probrt.trainer import heads

    input = Input(shape=[28, 28, 1], colour="grey", resize="none", range=(0.0, 255.0))
    return heads.Categorical(name="digit", labels=LABELS), input


def build_lenet(dropout: float = 0.0, **weight_settings):
    """Builds LeNet-5 from probrt's layers; `weight_settings` are arguments of each layer."""
    import keras

    from probrt.trainer import layers
    from probrt.trainer.layers.dropout import ChannelDropout
    from probrt.trainer.layers.split import HeadSplit
    from probrt.trainer.model import Model

    head, input = make_head_and_input()
    images = keras.Input(input.shape, name="images")
    x = keras.layers.Rescaling(1 / 255, name="unit")(images)
    for index, filters in enumerate((6 * WIDTH, 16 * WIDTH), start=1):
        padding = "same" if index == 1 else "valid"
        x = layers.Conv2D(filters, 5, padding=padding, activation="relu", name=f"conv{index}", **weight_settings)(x)
        x = keras.layers.MaxPooling2D(2, name=f"pool{index}")(x)
        if dropout:
            x = ChannelDropout(dropout, in_draws=True, name=f"conv{index}_dropout")(x)
    x = keras.layers.Flatten(name="flat")(x)
    for units in (120 * WIDTH // 2, 84 * WIDTH // 2):
        x = layers.Dense(units, activation="relu", name=f"dense{units}", **weight_settings)(x)
        if dropout:
            x = ChannelDropout(dropout, in_draws=True, name=f"dense{units}_dropout")(x)
    x = layers.Dense(len(LABELS), name="final", **weight_settings)(x)
    outputs = HeadSplit([(head.name, head.channels, 0)], name="heads")(x)
    return Model("lenet", input, (head,), keras.Model(images, outputs, name="network"))


def fit_lenet(
    seed: int, train, validation, epochs: int, kl_weight: float = 0.0, dropout: float = 0.0, **weight_settings
):
    """Builds and fits a LeNet-5."""
    import keras

    from probrt.trainer.config.settings import FitSettings
    from probrt.trainer.fit.loop import FitRun, fit_model

    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = build_lenet(dropout, **weight_settings)
    settings = FitSettings(epochs=epochs, batch=BATCH, learning_rate=RATE, kl_weight=kl_weight, kl_warmup=0.2)
    run = FitRun(seed=seed, augmentation=make_augmentation())
    for _ in fit_model(model, train, validation, settings=settings, run=run):
        pass
    return model


def predict_draws(model, images: np.ndarray, draws: int) -> np.ndarray:
    """Computes the class probabilities of each draw, [draws, images, 10], or at the posterior mean if draws is 0."""
    import tensorflow as tf

    @tf.function(autograph=False)
    def probabilities(batch, index):
        with use_handler(DrawHandler(SEED, index) if draws else MeanHandler()):
            return tf.nn.softmax(model.channels(batch)["digit"])

    parts = np.array_split(images.astype(np.float32), max(1, len(images) // 500))
    return np.stack(
        [
            np.concatenate([probabilities(part, tf.constant(index)).numpy() for part in parts])
            for index in range(max(1, draws))
        ]
    )


def fit_ensemble(train, validation, epochs: int, fold: int) -> PredictDraws:
    """Fits MEMBERS deterministic networks from different starting points; each is one draw."""
    models = [fit_lenet(fold + 100 * n, train, validation, epochs, kernel_posterior=None) for n in range(MEMBERS)]
    return lambda images: np.concatenate([predict_draws(model, images, 0) for model in models])


def fit_mc_dropout(train, validation, epochs: int, fold: int) -> PredictDraws:
    """Fits a deterministic network with dropout; each draw drops other channels."""
    model = fit_lenet(fold, train, validation, epochs, dropout=0.2, kernel_posterior=None)
    return lambda images: predict_draws(model, images, DRAWS)


def bayesian(kl_weight: float, dropout: float = 0.0, **weight_settings) -> Callable[..., PredictDraws]:
    """Returns a function that fits a network with random weights.

    Args:
        kl_weight: the weight of the KL divergence in the loss.
        dropout: the share of channels that every draw drops.
        weight_settings: arguments of each of probrt's layers.
    """

    def fit_bayesian(train, validation, epochs: int, fold: int) -> PredictDraws:
        model = fit_lenet(fold, train, validation, epochs, kl_weight, dropout, estimator=ESTIMATOR, **weight_settings)
        return lambda images: predict_draws(model, images, DRAWS)

    return fit_bayesian
