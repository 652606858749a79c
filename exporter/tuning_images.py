"""The images that the draws of a bank are tuned on: many, and unlike each other, made of few training images."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

# A shift is at most this part of a side.
_SHIFT = 1 / 14

Images = npt.NDArray[Any]


def make_tuning_images(images: Images, count: int, low: float, high: float) -> npt.NDArray[np.float32]:
    """Returns `count` images [count, *input.shape], float32, made of training images and within low to high.

    Each is a training image rolled by a few pixels, and then, by equal chance, kept, averaged with another, changed in
    contrast with noise, or with half of its first side out of another. Every second one is changed once more, far from
    the training images: rolled anywhere, sheared, mirrored along the last side or inverted. None is mirrored along the
    first side or blurred: the draws are kept by, and measured on, such images (`bank_images.py`).
    """
    random = np.random.default_rng(5)
    images = images.astype(np.float32)
    mean, deviation = images.mean(), images.std()
    made = []
    for place, kind in enumerate(random.integers(4, size=count)):
        image, other = (_roll(images[random.integers(len(images))], _SHIFT, random) for _ in range(2))
        if kind == 1:
            share = random.uniform(0.3, 0.7)
            image = share * image + (1.0 - share) * other
        elif kind == 2:
            noise = random.normal(0.0, deviation * random.uniform(0.0, 0.5), image.shape)
            image = mean + random.uniform(0.5, 1.4) * (image - mean) + noise
        elif kind == 3:
            half = len(image) // 2
            start = random.integers(half + 1)
            image[start : start + half] = other[start : start + half]
        made.append(_change_far(image, mean, random) if place % 2 else image)
    return np.asarray(np.clip(np.stack(made), low, high), np.float32)


def _change_far(image: Images, mean: float, random: np.random.Generator) -> Images:
    """Returns the image rolled anywhere, sheared, mirrored along its last side, or of any contrast, also inverted."""
    kind, sides = random.integers(4), image.ndim - 1
    if kind == 0:
        return _roll(image, 0.5, random)
    if kind == 1 and sides > 1:
        slope, middle = random.uniform(-0.5, 0.5), len(image) / 2
        return np.stack([np.roll(row, round(slope * (place - middle)), 0) for place, row in enumerate(image)])
    if kind == 2 and sides > 1:
        return np.flip(image, sides - 1)
    return np.asarray(mean + random.uniform(-1.0, 1.5) * (image - mean))


def _roll(image: Images, part: float, random: np.random.Generator) -> Images:
    """Returns a copy, rolled along each side by a random number of pixels, at most that part of the side."""
    sides = tuple(range(image.ndim - 1))
    largest = [int(image.shape[side] * part) for side in sides]
    return np.roll(image, tuple(int(random.integers(-pixels, pixels + 1)) for pixels in largest), sides)
