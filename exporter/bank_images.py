"""The images that a bank is chosen on, kept by and measured on: of training images, and shifted in several ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# Per kind of image: how many values one pass holds, and how many images.
_MAX_VALUES = 1 << 18
_MAX_IMAGES = 40
# Out of how many times as many images the choice takes those on which the draws differ most.
_CANDIDATES = 4

Images = npt.NDArray[Any]


@dataclass(frozen=True)
class BankImages:
    """Raw images by purpose, float32.

    chosen_on: one array per kind. kept_on, measured_on: like the training images, and shifted in a way that no other
    set is.
    """

    chosen_on: tuple[Images, ...]
    kept_on: tuple[Images, Images]
    measured_on: tuple[Images, Images]

    def list_sets(self) -> Iterator[Images]:
        """Yields all sets, in this order."""
        yield from (*self.chosen_on, *self.kept_on, *self.measured_on)


def count_images(images: Images) -> int:
    """Returns how many images of each kind the choice sees; less than 2 leave nothing to choose on."""
    return min(_MAX_IMAGES, len(images) // 3, max(4, _MAX_VALUES // int(np.prod(images.shape[1:]))))


def make_bank_images(
    images: Images, low: float, high: float, measure_spread: Callable[[Images], npt.NDArray[np.floating]]
) -> BankImages:
    """Divides training images [count, *input.shape] into thirds for the three purposes.

    low, high: the range of the input. measure_spread: returns how much draws differ on each image. On most training
    images they hardly do, so the choice takes those on which they differ most, out of four times as many; the other
    sets are taken as they come.
    """
    count = count_images(images)
    candidates = images[0::3][: _CANDIDATES * count]
    kept_on, measured_on = (images[rows] for rows in _reserve(len(images), count))

    def clip(values: Images) -> Images:
        return np.clip(values, low, high).astype(np.float32)

    def take_uncertain(kind: Images) -> Images:
        return kind[np.sort(np.argsort(-measure_spread(kind), kind="stable")[:count])]

    return BankImages(
        tuple(take_uncertain(clip(change(candidates))) for change in (_keep, _mix, _add_noise)),
        (clip(kept_on), clip(_blur(kept_on))),
        (clip(measured_on), clip(_mirror(measured_on))),
    )


def list_free_images(images: Images) -> Images:
    """Returns the images that are neither kept on nor measured on; some of them were chosen on."""
    reserved = np.concatenate(_reserve(len(images), count_images(images)))
    return np.delete(images, reserved, axis=0)


def _reserve(images: int, count: int) -> tuple[npt.NDArray[np.int_], npt.NDArray[np.int_]]:
    """Returns which images the order is kept on, and which it is measured on."""
    places = np.arange(images)
    return places[1::3][: max(2, count // 2)], places[2::3][:count]


def _keep(images: Images) -> Images:
    return images


def _mix(images: Images) -> Images:
    """Averages pairs of images: they lie between classes, where draws differ."""
    return np.asarray(0.5 * (images + images[np.random.default_rng(1).permutation(len(images))]))


def _add_noise(images: Images) -> Images:
    """Lowers the images' contrast and adds noise of a third of their standard deviation."""
    noise = np.random.default_rng(0).normal(0.0, images.std() / 3.0, images.shape)
    return np.asarray(images.mean() + 0.7 * (images - images.mean()) + noise)


def _blur(images: Images) -> Images:
    """Averages the images with themselves a step further along their first side, then makes them brighter."""
    return np.asarray(0.5 * (images + np.roll(images, 1, axis=1)) + 0.2 * images.std())


def _mirror(images: Images) -> Images:
    """Reverses the images along their first side and raises their contrast."""
    return np.asarray(images.mean() + 1.3 * (images[:, ::-1] - images.mean()))
