"""Augmentation in the graph: changes images at random, and moves masks and boxes along.

All random numbers of a batch come from one key, a row of them per example, so that a batch does not depend on the
number of devices that share it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import ConfigError
from probrt.trainer.config.settings import Augmentation
from probrt.trainer.data.photometric import change_photometry, photometric_share
from probrt.trainer.heads import AnyHead

# Random numbers per example: three shifts, three flips, turn, rotate, zoom, brightness, contrast.
_NUMBERS = 11

Tensors = dict[str, tf.Tensor]
Targets = dict[str, tf.Tensor]


def check_augmentation(settings: Augmentation, input: Input) -> None:
    """Raises ConfigError for an augmentation that the input cannot have."""
    rank = len(input.shape) - 1
    sides: tuple[str, ...] = ("horizontal", "vertical", "depth")[:rank]
    for side in settings.flip:
        if side not in sides:
            raise ConfigError(
                f"data.flip: {side}: the input has {rank} sides; known here: {', '.join(sides) or 'none'}"
            )
    if rank == 0 and settings.shift:
        raise ConfigError("data.shift: feature vectors have no positions to shift")
    if rank != 2 and (settings.rotate or settings.zoom):
        raise ConfigError(f"data.{'rotate' if settings.rotate else 'zoom'}: only for two-dimensional images")
    if settings.turn and (rank < 2 or input.shape[-3] != input.shape[-2]):
        raise ConfigError(f"data.turn: a quarter turn needs equal sides; the input has {input.shape[:-1]}")
    if settings.photometric not in ("auto", 0) and rank != 2:
        raise ConfigError("data.photometric: only for two-dimensional images")
    for name in ("brightness", "contrast", "noise", "photometric"):
        if getattr(settings, name) not in ("auto", 0) and input.range is None:
            raise ConfigError(f"data.{name}: is a part of input.range, which the config does not give")


def augment(
    images: tf.Tensor,
    targets: Targets,
    settings: Augmentation,
    *,
    heads: Sequence[AnyHead],
    input: Input,
    key: tf.Tensor,
) -> tuple[tf.Tensor, Targets]:
    """Changes the images and targets of a batch as `settings` allow, at random by `key`, int32 [2].

    images: [batch, *sides, channels]; maps of targets [batch, *sides, outputs] or, of classes, [batch, *sides]; boxes
    [batch, 4], fractions of the sides. A box that leaves the image becomes NaN, a missing target.
    """
    if not settings.changes:
        return images, targets
    maps = {head.name: targets[head.name] for head in heads if head.per_position}
    flat = {name for name, value in maps.items() if len(value.shape) < len(images.shape)}
    numbers = tf.random.stateless_uniform([tf.shape(images)[0], _NUMBERS], key)
    scene = _Scene(
        images=images,
        maps={name: value[..., None] if name in flat else value for name, value in maps.items()},
        boxes={head.name: targets[head.name] for head in heads if head.target_is_box},
        interpolation={head.name: head.interpolation for head in heads if head.per_position},
    )
    for change in (_flip, _turn, _shift, _rotate_and_zoom):
        scene = change(scene, numbers, settings)
    images = _change_colours(scene.images, numbers, settings, input, key)
    share = photometric_share(settings, heads, input)
    if share and input.range is not None:
        images = change_photometry(images, share, input.range, key)
    moved = {name: value[..., 0] if name in flat else value for name, value in scene.maps.items()}
    clipped = {name: _clip_box(box) for name, box in scene.boxes.items()}
    return images, {**targets, **moved, **clipped}


@dataclass(frozen=True)
class _Scene:
    """What moves together: images, maps of targets, [batch, *sides, channels] each, and boxes [batch, 4].

    interpolation: how each map is resampled; images are always interpolated.
    """

    images: tf.Tensor
    maps: Tensors
    boxes: Tensors
    interpolation: dict[str, str]

    def move(self, layer: Callable[[tf.Tensor], tf.Tensor], box: Callable[[tf.Tensor], tf.Tensor]) -> _Scene:
        """Returns the scene after `layer` has moved images and maps, and `box` the boxes."""
        return dataclasses.replace(
            self,
            images=layer(self.images),
            maps={name: layer(value) for name, value in self.maps.items()},
            boxes={name: box(value) for name, value in self.boxes.items()},
        )


def _flip(scene: _Scene, numbers: tf.Tensor, settings: Augmentation) -> _Scene:
    rank = len(scene.images.shape)
    for place, name in enumerate(("horizontal", "vertical", "depth")):
        if name in settings.flip:
            chosen = numbers[:, 3 + place] < 0.5
            scene = scene.move(
                functools.partial(_flip_layer, chosen=chosen, axis=rank - 2 - place),
                functools.partial(_flip_box, chosen=chosen, place=place),
            )
    return scene


def _flip_layer(layer: tf.Tensor, chosen: tf.Tensor, axis: int) -> tf.Tensor:
    return tf.where(_per_example(chosen, layer), tf.reverse(layer, [axis]), layer)


def _flip_box(box: tf.Tensor, chosen: tf.Tensor, place: int) -> tf.Tensor:
    if place == 2:  # a box has no depth
        return box
    mirrored = tf.unstack(box, axis=1)
    mirrored[place], mirrored[2 + place] = 1.0 - box[:, 2 + place], 1.0 - box[:, place]
    return tf.where(chosen[:, None], tf.stack(mirrored, 1), box)


def _turn(scene: _Scene, numbers: tf.Tensor, settings: Augmentation) -> _Scene:
    if not settings.turn:
        return scene
    for quarter in (1, 2, 3):  # turns each image once more if its number is large enough
        chosen = numbers[:, 6] * 4.0 >= quarter
        scene = scene.move(functools.partial(_turn_layer, chosen=chosen), functools.partial(_turn_box, chosen=chosen))
    return scene


def _turn_layer(layer: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    """A quarter turn to the left: mirrors the last side, then exchanges the last two."""
    rank = len(layer.shape)
    exchanged = [*range(rank - 3), rank - 2, rank - 3, rank - 1]
    return tf.where(_per_example(chosen, layer), tf.transpose(tf.reverse(layer, [rank - 2]), exchanged), layer)


def _turn_box(box: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    return tf.where(chosen[:, None], tf.stack([box[:, 1], 1.0 - box[:, 2], box[:, 3], 1.0 - box[:, 0]], 1), box)


def _shift(scene: _Scene, numbers: tf.Tensor, settings: Augmentation) -> _Scene:
    shift = settings.shift
    if shift == 0:
        return scene
    rank = len(scene.images.shape)
    corners = tf.cast(tf.floor(numbers[:, :3] * (2 * shift + 1)), tf.int32)

    def shift_layer(layer: tf.Tensor) -> tf.Tensor:
        padded = tf.pad(layer, [[0, 0], *[[shift, shift]] * (rank - 2), [0, 0]], mode="SYMMETRIC")
        for place, axis in enumerate(range(1, rank - 1)):
            rows = corners[:, place : place + 1] + tf.range(tf.shape(layer)[axis])
            padded = tf.gather(padded, rows, axis=axis, batch_dims=1)
        return padded

    def shift_box(box: tf.Tensor) -> tf.Tensor:
        sides = tf.cast(tf.shape(scene.images)[1:3], tf.float32)
        down_right = tf.cast(shift - corners[:, :2], tf.float32) / sides
        return box + tf.tile(tf.reverse(down_right, [1]), [1, 2])

    return scene.move(shift_layer, shift_box)


def _rotate_and_zoom(scene: _Scene, numbers: tf.Tensor, settings: Augmentation) -> _Scene:
    """Rotates and zooms about the centre; mirrors the image beyond its edges."""
    if not (settings.rotate or settings.zoom):
        return scene
    angle = (2.0 * numbers[:, 7] - 1.0) * (settings.rotate * math.pi / 180.0)
    size = tf.exp((2.0 * numbers[:, 8] - 1.0) * math.log1p(settings.zoom))
    height, width = (tf.cast(side, tf.float32) for side in tf.unstack(tf.shape(scene.images)[1:3]))
    x, y = (width - 1.0) / 2.0, (height - 1.0) / 2.0
    cos, sin = tf.cos(angle) / size, tf.sin(angle) / size
    # Where each pixel of the result comes from: centre + R (pixel - centre) / size.
    zero = tf.zeros_like(cos)
    matrix = tf.stack([cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y, zero, zero], axis=1)

    def rotate_box(box: tf.Tensor) -> tf.Tensor:
        """The box around the rotated box."""
        # Pixel centres sit half a pixel inside the fractions' grid.
        across = tf.gather(box, [0, 2, 0, 2], axis=1) * width - width / 2.0
        down = tf.gather(box, [1, 1, 3, 3], axis=1) * height - height / 2.0
        cosine, sine = (tf.cos(angle) * size)[:, None], (tf.sin(angle) * size)[:, None]
        new_x = (cosine * across + sine * down + width / 2.0) / width
        new_y = (-sine * across + cosine * down + height / 2.0) / height
        return tf.stack(
            [tf.reduce_min(new_x, 1), tf.reduce_min(new_y, 1), tf.reduce_max(new_x, 1), tf.reduce_max(new_y, 1)], 1
        )

    return dataclasses.replace(
        scene,
        images=_resample(scene.images, matrix, "bilinear"),
        maps={name: _resample(value, matrix, scene.interpolation[name]) for name, value in scene.maps.items()},
        boxes={name: rotate_box(box) for name, box in scene.boxes.items()},
    )


def _resample(layer: tf.Tensor, matrix: tf.Tensor, interpolation: str) -> tf.Tensor:
    resampled = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(layer, tf.float32),
        transforms=matrix,
        output_shape=tf.shape(layer)[1:3],
        fill_value=0.0,
        interpolation=interpolation.upper(),
        fill_mode="REFLECT",
    )
    resampled = tf.cast(resampled, layer.dtype)
    resampled.set_shape(layer.shape)
    return resampled


def _change_colours(
    images: tf.Tensor, numbers: tf.Tensor, settings: Augmentation, input: Input, key: tf.Tensor
) -> tf.Tensor:
    if input.range is None or not (settings.brightness or settings.contrast or settings.noise):
        return images
    low, high = input.range
    mean = tf.reduce_mean(images, axis=list(range(1, len(images.shape))), keepdims=True)
    contrast = 1.0 + (2.0 * _per_example(numbers[:, 10], images) - 1.0) * settings.contrast
    brightness = (2.0 * _per_example(numbers[:, 9], images) - 1.0) * settings.brightness * (high - low)
    images = mean + (images - mean) * contrast + brightness
    if settings.noise:
        images += tf.random.stateless_normal(tf.shape(images), key + 1) * (settings.noise * (high - low))
    return tf.clip_by_value(images, low, high)


def _clip_box(box: tf.Tensor) -> tf.Tensor:
    """The part of a box that is inside the image; NaN if there is none."""
    clipped = tf.clip_by_value(box, 0.0, 1.0)
    visible = tf.reduce_all(clipped[:, 2:] > clipped[:, :2], axis=1, keepdims=True)
    return tf.where(visible & tf.math.is_finite(box), clipped, tf.constant(math.nan))


def _per_example(values: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Reshapes [batch] values so that they broadcast against `like`, [batch, …]."""
    return tf.reshape(values, [-1] + [1] * (len(like.shape) - 1))
