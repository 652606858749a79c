"""Photometric augmentation: changes the values of pixels and not their places, so that no target changes.

A chain of simple changes with random strengths on a share of the images, as AugMix has it (Hendrycks et al. 2020), with
random textures mixed in, as PixMix has it (Hendrycks et al. 2022). The other images stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from probrt.runtime.bundle.manifest import Input
from probrt.trainer.config.settings import Augmentation
from probrt.trainer.heads import AnyHead

# The share of "auto", and the chance of each change in an image that is changed at all.
_SHARE, _CHANCE = 0.25, 0.5
# Random numbers per example: chosen or not, then for each of the four changes its chance and its strengths.
_NUMBERS = 13
# Sides of the grids of normal numbers that are enlarged to smooth textures.
_GRIDS = (3, 7)


def classifies_pictures(heads: Sequence[AnyHead], input: Input) -> bool:
    """Whether the input is a picture with a known range and every head tells classes of whole pictures.

    A number may be a matter of brightness, and so may a mask.
    """
    known = len(input.shape) == 3 and input.range is not None
    return known and all(head.kind != "real" and not head.per_position for head in heads)


def photometric_share(settings: Augmentation, heads: Sequence[AnyHead], input: Input) -> float:
    """Returns the share of the images that `settings.photometric` changes; "auto" is a quarter or none."""
    if settings.photometric == "auto":
        return _SHARE if classifies_pictures(heads, input) else 0.0
    return settings.photometric


def change_photometry(images: tf.Tensor, share: float, limits: tuple[float, float], key: tf.Tensor) -> tf.Tensor:
    """Changes a share of the images [batch, height, width, channels], at random by `key`, int32 [2].

    limits: the lowest and the highest value of a pixel; the result stays within.
    """
    low, high = limits
    numbers = tf.random.stateless_uniform([tf.shape(images)[0], _NUMBERS], key + 2)
    number = [tf.reshape(column, [-1, 1, 1, 1]) for column in tf.unstack(numbers, axis=1)]
    values = (images - low) / (high - low)
    changed = _blur_or_sharpen(values, number[1], number[2], number[3])
    changed = _change_contrast(changed, number[4], number[5], number[6])
    changed = _add_texture(changed, number[7], number[8], number[9], key + 3)
    changed = _add_pixel_noise(changed, number[10], number[11], number[12], key + 5)
    changed = low + (high - low) * tf.clip_by_value(changed, 0.0, 1.0)
    return tf.where(number[0] < share, changed, images)


def _blur_or_sharpen(values: tf.Tensor, chance: tf.Tensor, strength: tf.Tensor, direction: tf.Tensor) -> tf.Tensor:
    """Moves the values towards their local means, over a square or a line, or away from them."""
    wide, high = (tf.nn.avg_pool2d(values, sides, 1, "SAME") for sides in ((1, 5), (5, 1)))
    square = tf.nn.avg_pool2d(tf.nn.avg_pool2d(values, 3, 1, "SAME"), 3, 1, "SAME")
    mean = tf.where(direction < 0.25, wide, tf.where(direction < 0.5, high, square))
    return values + tf.where(chance < _CHANCE, 1.75 * strength - 0.75, 0.0) * (mean - values)


def _change_contrast(values: tf.Tensor, chance: tf.Tensor, contrast: tf.Tensor, brightness: tf.Tensor) -> tf.Tensor:
    """Scales the differences from the mean by 0.4 to 1.6 and moves all values by up to 0.4."""
    mean = tf.reduce_mean(values, axis=[1, 2, 3], keepdims=True)
    changed = mean + (0.4 + 1.2 * contrast) * (values - mean) + (0.8 * brightness - 0.4)
    return tf.where(chance < _CHANCE, changed, values)


def _add_texture(
    values: tf.Tensor, chance: tf.Tensor, strength: tf.Tensor, balance: tf.Tensor, key: tf.Tensor
) -> tf.Tensor:
    """Mixes in a texture that is the same in all channels: normal numbers on a coarse and a fine grid, enlarged."""
    rows, sides = tf.shape(values)[0], tf.shape(values)[1:3]
    coarse, fine = (
        tf.image.resize(tf.random.stateless_normal([rows, grid, grid, 1], key + place), sides)
        for place, grid in enumerate(_GRIDS)
    )
    texture = 0.5 + 0.5 * (balance * coarse + (1.0 - balance) * fine)
    share = tf.where(chance < _CHANCE, 0.5 * strength, 0.0)
    return values + share * (texture - values)


def _add_pixel_noise(
    values: tf.Tensor, chance: tf.Tensor, strength: tf.Tensor, replaced: tf.Tensor, key: tf.Tensor
) -> tf.Tensor:
    """Adds normal noise of deviation up to 0.2, and makes up to 15 % of the pixels black or white."""
    noise = tf.random.stateless_normal(tf.shape(values), key)
    dice = tf.random.stateless_uniform(tf.concat([tf.shape(values)[:3], [1]], 0), key + 1)
    bound = 0.15 * replaced
    noisy = values + 0.2 * strength * noise
    noisy = tf.where(dice < bound, tf.where(dice < bound / 2.0, 0.0, 1.0), noisy)
    return tf.where(chance < _CHANCE, noisy, values)
