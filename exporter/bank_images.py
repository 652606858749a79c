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
# Out of how many times as many images those are taken on which the draws differ most.
_CANDIDATES = 4

Images = npt.NDArray[Any]


@dataclass(frozen=True)
class BankImages:
    """Raw images by purpose, float32: of each kind those on which the draws differ most, out of some times as many.

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
    images they hardly do: of 256 digits, 15 to 22 make as much of the error as 256 equal ones would. So of each kind
    those are taken on which they differ most, out of some times as many; the rest would add next to nothing.
    """
    count = count_images(images)
    candidates = images[0::3][: _CANDIDATES * count]
    kept_on, measured_on = (images[rows] for rows in _reserve(len(images), count))
    kept = _count_kept(count)

    def clip(values: Images) -> Images:
        return np.clip(values, low, high).astype(np.float32)

    def take_uncertain(kind: Images, count: int) -> Images:
        values = clip(kind)
        return values[np.sort(np.argsort(-measure_spread(values), kind="stable")[:count])]

    return BankImages(
        tuple(take_uncertain(change(candidates), count) for change in (_keep, _mix, _add_noise)),
        (take_uncertain(kept_on, kept), take_uncertain(_blur(kept_on), kept)),
        (take_uncertain(measured_on, count), take_uncertain(_mirror(measured_on), count)),
    )


def list_free_images(images: Images) -> Images:
    """Returns the images that neither set may hold that is kept or measured on; some of them were chosen on."""
    reserved = np.concatenate(_reserve(len(images), count_images(images)))
    return np.delete(images, reserved, axis=0)


def _reserve(images: int, count: int) -> tuple[npt.NDArray[np.int_], npt.NDArray[np.int_]]:
    """Returns out of which images those are taken that the order is kept on, and that it is measured on."""
    places = np.arange(images)
    return places[1::3][: _CANDIDATES * _count_kept(count)], places[2::3][: _CANDIDATES * count]


def _count_kept(count: int) -> int:
    """Returns how many images of each kind the order is kept on."""
    return max(2, count // 2)


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
