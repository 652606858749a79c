"""Small finished Keras models and labelled pictures, for the tests of adoption."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from PIL import Image

LABELS = [str(digit) for digit in range(10)]
CARD = f'[[heads]]\nname = "digit"\nlikelihood = "categorical"\nlabels = {LABELS}\n'.replace("'", '"')


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns handwritten digits of 8 by 8 pixels, uint8 [n, 8, 8, 1], and their labels, in a fixed order."""
    from sklearn import datasets

    bunch = datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    return images[order], bunch.target[order]


def write_digits(folder: Path, count: int = 1000) -> Path:
    """Writes a data folder of digits: three fifths to train, the rest in two halves."""
    images, labels = load_digits()
    lines = ["file_name,digit,split,slant"]
    folder.mkdir(parents=True, exist_ok=True)
    for place in range(count):
        split = ("train", "train", "train", "validation", "test")[place * 5 // count]
        Image.fromarray(images[place, ..., 0]).save(folder / f"{place}.png")
        lines.append(f"{place}.png,{labels[place]},{split},{images[place].mean() / 10 + 5:.4f}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def make_classifier(activation: str | None = "softmax") -> keras.Sequential:
    """Returns a small convolutional classifier of pixels in [0, 1]."""
    keras.utils.set_random_seed(1)
    return keras.Sequential([
        keras.Input((8, 8, 1)),
        keras.layers.RandomTranslation(0.05, 0.05),
        keras.layers.Conv2D(12, 3, activation="relu"),
        keras.layers.BatchNormalization(momentum=0.9),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        keras.layers.Dense(24, activation="relu"),
        keras.layers.Dense(10, activation=activation),
    ])  # fmt: skip


def train(model: keras.Model, epochs: int = 12) -> keras.Model:
    """Fits a classifier on the first 600 digits."""
    images, labels = load_digits()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(images[:600] / 255.0, labels[:600], epochs=epochs, batch_size=32, verbose=0)
    return model
