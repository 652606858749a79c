"""A picture of an image with a per-position answer laid over it: outline of the mean, tint of the doubt."""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.manifest import HeadRecord
from probrt.runtime.predict.combine import over_classes

Values = npt.NDArray[np.float32]

OUTLINE = (0, 255, 255)
TINT = (255, 0, 0)


def can_overlay(head: HeadRecord) -> bool:
    """Whether a head's answer is a map in two dimensions of classes or probabilities."""
    positions = len(head.outputs["mean"]) - 1
    return head.per_position and head.combine == "entropy" and positions == 2


def overlay(
    pixels: Values, unit: tuple[float, float] | None, head: HeadRecord, answer: Mapping[str, Values]
) -> npt.NDArray[np.uint8]:
    """The input [height, width, 3] with red where the draws disagree and cyan where the mean's regions end.

    pixels: [height, width, channels] raw values in `unit`, or in their own span; one channel, or the first three.
    answer: mean [map height, map width, outputs], and epistemic, else total, else aleatoric entropy, red in
        full at the largest entropy there is. A smaller map is enlarged without smoothing.
    The regions are the likeliest classes, or where a probability is at least 0.5.
    """
    low, high = unit or (float(pixels.min()), float(pixels.max()))
    grey = np.clip((pixels - low) / ((high - low) or 1.0), 0.0, 1.0) * 255
    picture = np.repeat(grey[..., :1], 3, axis=-1) if grey.shape[-1] < 3 else grey[..., :3]
    size = picture.shape[:2]
    mean = answer["mean"]
    regions = mean.argmax(axis=-1)[..., np.newaxis] if over_classes(head) else mean >= 0.5
    doubt = next(answer[name] for name in ("epistemic", "total", "aleatoric") if name in answer)
    top = math.log(len(head.labels)) if over_classes(head) else math.log(2)
    doubt = np.clip((doubt if doubt.ndim == 2 else doubt.max(axis=-1)) / top, 0.0, 1.0)
    strength = _enlarged(doubt, size)[..., np.newaxis]
    picture = picture * (1 - strength) + np.array(TINT) * strength
    edge = np.zeros(size, bool)
    for index in range(regions.shape[-1]):
        region = _enlarged(regions[..., index], size)
        edge[:-1] |= region[:-1] != region[1:]
        edge[:, :-1] |= region[:, :-1] != region[:, 1:]
    picture[edge] = OUTLINE
    return np.asarray(np.rint(picture), np.uint8)


def _enlarged(values: npt.NDArray[np.generic], size: tuple[int, ...]) -> npt.NDArray[np.generic]:
    rows, columns = (np.arange(side) * of // side for side, of in zip(size, values.shape, strict=True))
    return np.asarray(values[rows][:, columns])
