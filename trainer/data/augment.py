"""Augmentation in the graph: images change at random, masks and boxes move along.

All random numbers of a batch come from one key, a row of them per example, so that a batch is the same however many
devices share it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

from probrt.runtime.bundle.manifest import Input
from probrt.trainer.config.settings import Augmentation
from probrt.trainer.heads import AnyHead
from probrt.trainer.heads.bernoulli import BinaryHead
from probrt.trainer.heads.categorical import ClassHead
from probrt.trainer.heads.real import BoxHead

# A row of random numbers per example: three shifts, three flips, turn, rotate, zoom, brightness, contrast.
_NUMBERS = 11


def augmented(one: dict, settings: Augmentation, heads: Sequence[AnyHead], input: Input, key: tf.Tensor) -> dict:
    """A batch {"images", "targets"} after the changes that `settings` allow, drawn with `key`, int32 [2].

    images: [batch, *sides, channels]; masks [batch, *sides, outputs] or, of classes, [batch, *sides]; boxes
    [batch, 4], fractions of the sides. A box that leaves the image becomes NaN, a missing target.
    """
    if not settings.changes:
        return one
    targets = dict(one["targets"])
    maps = {head.name: targets[head.name] for head in heads if head.per_position}
    flat = {name: value for name, value in maps.items() if len(value.shape) < len(one["images"].shape)}
    layers = {"": one["images"], **maps, **{name: value[..., None] for name, value in flat.items()}}
    smooth = {"", *(head.name for head in heads if head.per_position and not isinstance(head, (ClassHead, BinaryHead)))}
    boxes = {head.name: targets[head.name] for head in heads if isinstance(head, BoxHead)}
    numbers = tf.random.stateless_uniform([tf.shape(one["images"])[0], _NUMBERS], key)
    for change in (_flipped, _turned, _shifted, _resampled):
        layers, boxes = change(layers, boxes, numbers, settings, smooth)
    images = _coloured(layers.pop(""), numbers, settings, input, key)
    targets |= {name: value[..., 0] if name in flat else value for name, value in layers.items()}
    targets |= {name: _inside(box) for name, box in boxes.items()}
    return {"images": images, "targets": targets}


Layers = dict[str, tf.Tensor]


def _flipped(layers: Layers, boxes: Layers, numbers: tf.Tensor, settings: Augmentation, smooth: set[str]) -> tuple:
    rank = len(layers[""].shape)
    for place, name in enumerate(("horizontal", "vertical", "depth")):
        if name not in settings.flip:
            continue
        chosen = numbers[:, 3 + place] < 0.5
        layers = {
            key: tf.where(tf.reshape(chosen, [-1] + [1] * (rank - 1)), tf.reverse(value, [rank - 2 - place]), value)
            for key, value in layers.items()
        }
        for key, box in boxes.items():
            if place < 2:
                low, high = box[:, place], box[:, 2 + place]
                mirrored = tf.unstack(box, axis=1)
                mirrored[place], mirrored[2 + place] = 1.0 - high, 1.0 - low
                boxes = {**boxes, key: tf.where(chosen[:, None], tf.stack(mirrored, 1), box)}
    return layers, boxes


def _turned(layers: Layers, boxes: Layers, numbers: tf.Tensor, settings: Augmentation, smooth: set[str]) -> tuple:
    if not settings.turn:
        return layers, boxes
    rank = len(layers[""].shape)
    for quarter in (1, 2, 3):  # every image turned once more where its number says so
        again = numbers[:, 6] * 4.0 >= quarter
        across = [*range(rank - 3), rank - 2, rank - 3, rank - 1]
        layers = {
            # A quarter turn to the left: the last side mirrored, then both exchanged.
            key: tf.where(
                tf.reshape(again, [-1] + [1] * (rank - 1)),
                tf.transpose(tf.reverse(value, [rank - 2]), across),
                value,
            )
            for key, value in layers.items()
        }
        boxes = {
            key: tf.where(again[:, None], tf.stack([box[:, 1], 1.0 - box[:, 2], box[:, 3], 1.0 - box[:, 0]], 1), box)
            for key, box in boxes.items()
        }
    return layers, boxes


def _shifted(layers: Layers, boxes: Layers, numbers: tf.Tensor, settings: Augmentation, smooth: set[str]) -> tuple:
    shift = settings.shift
    if shift == 0:
        return layers, boxes
    rank = len(layers[""].shape)
    corners = tf.cast(tf.floor(numbers[:, :3] * (2 * shift + 1)), tf.int32)
    moved = {}
    for key, value in layers.items():
        padded = tf.pad(value, [[0, 0], *[[shift, shift]] * (rank - 2), [0, 0]], mode="SYMMETRIC")
        for place, axis in enumerate(range(1, rank - 1)):
            rows = corners[:, place : place + 1] + tf.range(tf.shape(value)[axis])
            padded = tf.gather(padded, rows, axis=axis, batch_dims=1)
        moved[key] = padded
    if boxes:
        sides = tf.cast(tf.shape(layers[""])[1:3], tf.float32)
        down_right = tf.cast(shift - corners[:, :2], tf.float32) / sides
        steps = tf.tile(tf.reverse(down_right, [1]), [1, 2])
        boxes = {key: box + steps for key, box in boxes.items()}
    return moved, boxes


def _resampled(layers: Layers, boxes: Layers, numbers: tf.Tensor, settings: Augmentation, smooth: set[str]) -> tuple:
    """Rotated and zoomed about the centre, mirrored beyond the edges."""
    if not (settings.rotate or settings.zoom):
        return layers, boxes
    angle = (2.0 * numbers[:, 7] - 1.0) * (settings.rotate * math.pi / 180.0)
    size = tf.exp((2.0 * numbers[:, 8] - 1.0) * math.log1p(settings.zoom))
    height, width = (tf.cast(side, tf.float32) for side in tf.unstack(tf.shape(layers[""])[1:3]))
    x, y = (width - 1.0) / 2.0, (height - 1.0) / 2.0
    cos, sin = tf.cos(angle) / size, tf.sin(angle) / size
    # Where each pixel of the answer comes from: centre + R (pixel - centre) / size.
    nought = tf.zeros_like(cos)
    matrix = tf.stack([cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y, nought, nought], axis=1)
    moved = {}
    for key, value in layers.items():
        moved[key] = tf.cast(
            tf.raw_ops.ImageProjectiveTransformV3(
                images=tf.cast(value, tf.float32),
                transforms=matrix,
                output_shape=tf.shape(value)[1:3],
                fill_value=0.0,
                interpolation="BILINEAR" if key in smooth else "NEAREST",
                fill_mode="REFLECT",
            ),
            value.dtype,
        )
        moved[key].set_shape(value.shape)
    if boxes:
        # Pixel centres sit half a pixel inside the fractions' grid.
        turn_x = (tf.cos(angle) * size)[:, None], (tf.sin(angle) * size)[:, None]
        found = {}
        for key, box in boxes.items():
            across = tf.gather(box, [0, 2, 0, 2], axis=1) * width - width / 2.0
            down = tf.gather(box, [1, 1, 3, 3], axis=1) * height - height / 2.0
            new_x = (turn_x[0] * across + turn_x[1] * down + width / 2.0) / width
            new_y = (-turn_x[1] * across + turn_x[0] * down + height / 2.0) / height
            found[key] = tf.stack(
                [tf.reduce_min(new_x, 1), tf.reduce_min(new_y, 1), tf.reduce_max(new_x, 1), tf.reduce_max(new_y, 1)], 1
            )
        boxes = found
    return moved, boxes


def _coloured(images: tf.Tensor, numbers: tf.Tensor, settings: Augmentation, input: Input, key: tf.Tensor) -> tf.Tensor:
    if input.range is None or not (settings.brightness or settings.contrast or settings.noise):
        return images
    low, high = input.range
    rank = len(images.shape)
    shape = [-1] + [1] * (rank - 1)
    mean = tf.reduce_mean(images, axis=list(range(1, rank)), keepdims=True)
    contrast = 1.0 + (2.0 * tf.reshape(numbers[:, 10], shape) - 1.0) * settings.contrast
    brightness = (2.0 * tf.reshape(numbers[:, 9], shape) - 1.0) * settings.brightness * (high - low)
    images = mean + (images - mean) * contrast + brightness
    if settings.noise:
        images += tf.random.stateless_normal(tf.shape(images), key + 1) * (settings.noise * (high - low))
    return tf.clip_by_value(images, low, high)


def _inside(box: tf.Tensor) -> tf.Tensor:
    """The part of a box that is inside the image; NaN if there is none."""
    clipped = tf.clip_by_value(box, 0.0, 1.0)
    seen = tf.reduce_all(clipped[:, 2:] > clipped[:, :2], axis=1, keepdims=True)
    return tf.where(seen & tf.math.is_finite(box), clipped, tf.constant(math.nan))
