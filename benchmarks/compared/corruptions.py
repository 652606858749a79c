"""Fifteen corruptions of grey pictures, after those of MNIST-C (Mu and Gilmer 2019), made with NumPy and SciPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

SEED = 22


def corrupt(images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns every corruption of images [count, height, width], uint8, by name."""
    return {
        name: np.stack(
            [
                _to_bytes(change(image.astype(float), np.random.default_rng((SEED, index))))
                for index, image in enumerate(images)
            ]
        )
        for name, change in CORRUPTIONS.items()
    }


def _to_bytes(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _shot_noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.poisson(image / 255 * 5) / 5 * 255


def _impulse_noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    chance = rng.uniform(size=image.shape)
    return np.where(chance < 0.08, 0, np.where(chance > 0.92, 255, image))


def _glass_blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    rows, columns = np.indices(image.shape)
    moved = image[
        np.clip(rows + rng.integers(-2, 3, image.shape), 0, image.shape[0] - 1),
        np.clip(columns + rng.integers(-2, 3, image.shape), 0, image.shape[1] - 1),
    ]
    return _blur(moved, 0.5)


def _motion_blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    from scipy import ndimage

    line = np.zeros((9, 9))
    line[4] = 1 / 9
    kernel = ndimage.rotate(line, rng.uniform(0, 180), reshape=False, order=1)
    return ndimage.convolve(image, kernel / kernel.sum())


def _affine(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    centre = (np.array(image.shape) - 1) / 2
    return ndimage.affine_transform(image, matrix, centre - matrix @ centre, order=1)


def _shear(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _affine(image, np.array([[1, 0], [rng.choice([-1, 1]) * 0.6, 1]]))


def _scale(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _affine(image, np.eye(2) * rng.uniform(1.4, 1.9))


def _rotate(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    angle = np.deg2rad(rng.choice([-1, 1]) * rng.uniform(25, 40))
    return _affine(image, np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]))


def _translate(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    from scipy import ndimage

    return ndimage.shift(image, rng.choice([-1, 1], 2) * rng.uniform(3, 5, 2), order=1)


def _stripe(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    striped = image.copy()
    start = rng.integers(6, image.shape[1] - 10)
    striped[:, start : start + 4] = 255 - striped[:, start : start + 4]
    return striped


def _fog(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return image * 0.6 + 160 * _clouds(image.shape, rng)


def _clouds(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Returns noise of several scales between 0 and 1."""
    from scipy import ndimage

    total = sum(ndimage.gaussian_filter(rng.normal(size=shape), size, mode="wrap") * size for size in (1, 2, 4, 8))
    return (total - total.min()) / np.ptp(total)


def _spatter(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.maximum(image, 255 * (_blur(rng.normal(size=image.shape), 1.0) > 0.55))


def _dotted_line(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    start, end = rng.uniform(0, image.shape[0] - 1, 2)
    dotted = image.copy()
    for column in range(0, image.shape[1], 2):
        dotted[round(start + (end - start) * column / image.shape[1]), column] = 255
    return dotted


def _zigzag(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    columns = np.arange(image.shape[1])
    level = rng.uniform(6, image.shape[0] - 7)
    rows = np.rint(level + 4 * (2 / np.pi) * np.arcsin(np.sin(columns * 0.9))).astype(int)
    crossed = image.copy()
    crossed[rows, columns] = 255
    return crossed


def _canny_edges(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    from scipy import ndimage

    gradient = np.hypot(ndimage.sobel(image, 0), ndimage.sobel(image, 1))
    return np.where((gradient > 300) & (ndimage.minimum_filter(image, 3) < 100), 255, 0)


def _brightness(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return image + rng.uniform(60, 120)


def _blur(image: np.ndarray, sigma: float) -> np.ndarray:
    from scipy import ndimage

    return ndimage.gaussian_filter(image, sigma)


CORRUPTIONS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "shot noise": _shot_noise,
    "impulse noise": _impulse_noise,
    "glass blur": _glass_blur,
    "motion blur": _motion_blur,
    "shear": _shear,
    "scale": _scale,
    "rotate": _rotate,
    "brightness": _brightness,
    "translate": _translate,
    "stripe": _stripe,
    "fog": _fog,
    "spatter": _spatter,
    "dotted line": _dotted_line,
    "zigzag": _zigzag,
    "canny edges": _canny_edges,
}
