"""A picture of an image with a per-position answer laid over it: outlined regions of the mean, tinted uncertainty.

Novelty has a picture of its own, with tinted strange places.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.manifest import HeadRecord
from probrt.runtime.rows.kinds import KINDS, Values

OUTLINE = (0, 255, 255)
TINT = (255, 0, 0)
NOVEL = (255, 255, 0)
# The novelty of a position, in standard deviations of those of calibration images, that begins to tint and that is
# fully yellow: of a hundred such positions, two to three are above the first.
NOVEL_FROM, NOVEL_TO = 2.0, 6.0


def can_overlay(head: HeadRecord) -> bool:
    """Whether the answer of a head is a two-dimensional map of classes or probabilities."""
    return head.per_position and KINDS[head.kind].has_regions and len(head.outputs["mean"]) == 3


def draw_overlay(
    pixels: Values, bounds: tuple[float, float] | None, head: HeadRecord, quantities: Mapping[str, Values]
) -> npt.NDArray[np.uint8]:
    """Draws the input [height, width, 3], red where the draws disagree and cyan where the regions of the mean end.

    pixels: [height, width, channels], raw values; one channel is shown as grey, of several the first three.
    bounds: the values shown as black and white; None takes the lowest and the highest of the image.
    quantities: `mean` [map height, map width, outputs], and epistemic, else total, else aleatoric entropy, whose
        largest possible value is fully red. A smaller map is enlarged without smoothing.
    Regions are the likeliest classes, or where a probability is at least 0.5.
    """
    picture = _show(pixels, bounds)
    size = picture.shape[:2]
    kind = KINDS[head.kind]
    entropy = next(quantities[name] for name in ("epistemic", "total", "aleatoric") if name in quantities)
    flat_entropy = entropy if entropy.ndim == 2 else entropy.max(axis=-1)
    picture = _tint(picture, flat_entropy / kind.largest_entropy(head), TINT)
    edge = np.zeros(size, bool)
    regions = kind.regions(quantities["mean"])
    for layer in range(regions.shape[-1]):
        region = _enlarge(regions[..., layer], size)
        edge[:-1] |= region[:-1] != region[1:]
        edge[:, :-1] |= region[:, :-1] != region[:, 1:]
    picture[edge] = OUTLINE
    return np.asarray(np.rint(picture), np.uint8)


def draw_novelty(pixels: Values, bounds: tuple[float, float] | None, scores: Values) -> npt.NDArray[np.uint8]:
    """Draws the input [height, width, 3], yellow where the scores of novelty [map height, map width] are high.

    pixels, bounds: as of `draw_overlay`.
    """
    strength = (scores - NOVEL_FROM) / (NOVEL_TO - NOVEL_FROM)
    return np.asarray(np.rint(_tint(_show(pixels, bounds), strength, NOVEL)), np.uint8)


def _show(pixels: Values, bounds: tuple[float, float] | None) -> Values:
    """Returns the input as a picture [height, width, 3] of 0 to 255."""
    low, high = bounds or (float(pixels.min()), float(pixels.max()))
    grey = np.clip((pixels - low) / ((high - low) or 1.0), 0.0, 1.0) * 255
    return np.repeat(grey[..., :1], 3, axis=-1) if grey.shape[-1] < 3 else grey[..., :3]


def _tint(picture: Values, strengths: Values, colour: tuple[int, int, int]) -> Values:
    """Colours a picture by strengths [map height, map width], of 0 to 1."""
    strength = np.asarray(_enlarge(np.clip(strengths, 0.0, 1.0), picture.shape[:2]), np.float32)[..., np.newaxis]
    return np.asarray(picture * (1 - strength) + np.array(colour, np.float32) * strength)


def _enlarge(values: npt.NDArray[np.generic], size: tuple[int, ...]) -> npt.NDArray[np.generic]:
    """Repeats the entries of a map [height, width] until it has `size`."""
    rows, columns = (np.arange(side) * length // side for side, length in zip(size, values.shape, strict=True))
    return np.asarray(values[rows][:, columns])
