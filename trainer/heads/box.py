"""A bounding box."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import tensorflow as tf

from probrt.trainer.heads.location_scale import NormalHead


class BoxHead(NormalHead, frozen=True, kw_only=True, tag="box"):
    """A bounding box: x_min, y_min, x_max, y_max as fractions of the image's width and height.

    Fractions, so that a box does not depend on the size an image is resized to; x grows to the right, y downwards,
    each from 0 to 1. The table's columns are <column>_x_min and so on. The noise is normal per coordinate.
    """

    SIDES: ClassVar[tuple[str, ...]] = ("x_min", "y_min", "x_max", "y_max")
    metric_name: ClassVar[str] = "box IoU"
    higher_is_better: ClassVar[bool] = True
    target_is_box: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.per_position:
            raise ValueError("a box is one per image: leave out per_position")
        if self.labels:
            raise ValueError("a box has outputs of its own: leave out labels")

    @property
    def size(self) -> int:
        return 4

    @property
    def names(self) -> tuple[str, ...]:
        return self.SIDES

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"{self.target}_{side}" for side in self.SIDES)

    def check_support(self, values: np.ndarray) -> None:
        super().check_support(values)
        for left, top, right, bottom in np.atleast_2d(values):
            if np.isnan([left, top, right, bottom]).all():
                continue
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                raise ValueError(
                    f"box ({left:g}, {top:g}, {right:g}, {bottom:g}) is not x_min < x_max and y_min < y_max inside the "
                    "image; coordinates are fractions of its width and height, 0 to 1"
                )

    def metric(self, mean: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        low, high = tf.maximum(mean[..., :2], target[..., :2]), tf.minimum(mean[..., 2:], target[..., 2:])
        both = tf.reduce_prod(tf.maximum(high - low, 0.0), axis=-1)
        areas = [tf.reduce_prod(tf.maximum(box[..., 2:] - box[..., :2], 0.0), axis=-1) for box in (mean, target)]
        return tf.boolean_mask(both / tf.maximum(tf.add_n(areas) - both, 1e-9), self.is_known(target))

    def extra_scores(self, mean: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
        overlap = self.metric(mean.astype(np.float32), target.astype(np.float32)).numpy()
        return {"box IoU": overlap.astype(np.float64)}
