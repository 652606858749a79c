"""Pictures that are of none of a data set's classes, in the size and the colours of the set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from compared import folders
from compared.pictures import SEED, make_unfamiliar, read_digits
from PIL import Image

COUNT = 500


def make_strangers(part: str, fashion: Path) -> dict[str, np.ndarray]:
    """Makes pictures of several kinds, uint8 [500, height, width, channels], for a part of the recipe benchmark.

    fashion: a folder with Fashion-MNIST; clothes are left out where it has none.
    """
    noise = np.random.default_rng(SEED + 3).integers(0, 256, (COUNT, 64, 64, 3), dtype=np.uint8)
    if part == "emoji":
        return {"photographs": cut_photographs(64), "noise": noise}
    digits = read_digits()[0]
    if part == "fashion":
        return {"digits": digits[:COUNT], "noise": noise[:, :28, :28, :1]}
    return {**make_unfamiliar(digits), **_read_clothes(fashion)}


def cut_photographs(side: int) -> np.ndarray:
    """Cuts squares of random sizes out of the two photographs of scikit-learn, resized to `side` pixels."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(SEED + 2)
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    squares = []
    for index in range(COUNT):
        photograph = photographs[index % 2]
        size = int(rng.integers(side, min(photograph.size) + 1))
        left, top = (int(rng.integers(0, length - size + 1)) for length in photograph.size)
        square = photograph.crop((left, top, left + size, top + size))
        squares.append(np.asarray(square.resize((side, side), Image.Resampling.LANCZOS)))
    return np.stack(squares)


def _read_clothes(fashion: Path) -> dict[str, np.ndarray]:
    try:
        return {"clothes": folders.read_idx(fashion, "t10k-images-idx3-ubyte")[:COUNT, ..., None]}
    except folders.MissingData:
        return {}
