"""The novelty of a model directory: the names in model.json, the numbers in novelty.npz."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

import numpy as np
from msgspec import Meta, Struct

from probrt.trainer.novelty.fit import MAX_CALIBRATION, MAX_DIRECTIONS, MAX_FEATURES, METHOD, MIN_IMAGES, PROTOTYPES
from probrt.trainer.novelty.score import Novelty, StageDistance
from probrt.trainer.novelty.stages import MAX_STAGES, StageRef

# Of each stage, with the largest number of entries.
_SIZES = {
    "centre": MAX_FEATURES,
    "inverse_deviation": MAX_FEATURES,
    "directions": MAX_FEATURES * MAX_DIRECTIONS,
    "prototypes": PROTOTYPES * MAX_DIRECTIONS,
    "spreads": MAX_DIRECTIONS,
    "residual": 1,
}


class NoveltyEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What model.json says of novelty.npz. fitted: the number of training images behind it."""

    method: str = METHOD
    stages: Annotated[list[StageRef], Meta(min_length=1, max_length=MAX_STAGES)]
    fitted: Annotated[int, Meta(ge=MIN_IMAGES)]

    @classmethod
    def of(cls, novelty: Novelty) -> Self:
        """Returns the entry of a novelty."""
        return cls(stages=list(novelty.stages), fitted=novelty.fitted)


def list_sizes(entry: NoveltyEntry) -> dict[str, int]:
    """Returns the names of the arrays of novelty.npz, and the largest number of entries of each."""
    sizes = {"weights": MAX_STAGES, "offset": 1, "scores": MAX_CALIBRATION, "width": 1}
    return sizes | {f"{index}.{name}": size for index in range(len(entry.stages)) for name, size in _SIZES.items()}


def to_arrays(novelty: Novelty) -> dict[str, Any]:
    """Returns the arrays of novelty.npz by name."""
    arrays: dict[str, Any] = {
        "weights": novelty.weights,
        "offset": np.float32(novelty.offset),
        "scores": novelty.scores,
        "width": np.float32(novelty.width),
    }
    for index, distance in enumerate(novelty.distances):
        arrays |= {f"{index}.{name}": np.asarray(getattr(distance, name), np.float32) for name in _SIZES}
    return arrays


def make_novelty(entry: NoveltyEntry, stored: Mapping[str, np.ndarray]) -> Novelty:
    """Returns the novelty that the arrays of novelty.npz hold.

    Raises ValueError or KeyError for numbers that are missing, misshapen or impossible.
    """
    arrays = {name: np.asarray(array, np.float32) for name, array in stored.items()}
    if wrong := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
        raise ValueError(f"{wrong[0]} holds values that are not finite")
    weights, scores, width = arrays["weights"], arrays["scores"], float(arrays["width"])
    if weights.shape != (len(entry.stages),) or not (weights > 0).all():
        raise ValueError(f"the weights {weights.tolist()} are not one above 0 for each of {len(entry.stages)} stages")
    if scores.ndim != 1 or not MIN_IMAGES <= len(scores) <= MAX_CALIBRATION:
        raise ValueError(f"it has {scores.size} scores; {MIN_IMAGES} to {MAX_CALIBRATION} are possible")
    if not width > 0:
        raise ValueError(f"the width {width:g} is not above 0")
    return Novelty(
        stages=tuple(entry.stages),
        distances=tuple(_make_distance(arrays, index) for index in range(len(entry.stages))),
        weights=weights,
        offset=float(arrays["offset"]),
        scores=np.sort(scores),
        width=width,
        fitted=entry.fitted,
    )


def _make_distance(arrays: Mapping[str, np.ndarray], index: int) -> StageDistance:
    values = {name: arrays[f"{index}.{name}"] for name in _SIZES}
    features, directions = values["directions"].shape
    shapes = {
        "centre": (features,),
        "inverse_deviation": (features,),
        "prototypes": (max(1, len(values["prototypes"])), directions),
        "spreads": (directions,),
        "residual": (),
    }
    for name, shape in shapes.items():
        if values[name].shape != shape:
            raise ValueError(f"{index}.{name} has the shape {list(values[name].shape)}, not {list(shape)}")
    residual = float(values.pop("residual"))
    if residual < 0 or not (values["inverse_deviation"] > 0).all() or not (values["spreads"] > 0).all():
        raise ValueError(f"a scale of stage {index} is not above 0")
    return StageDistance(**values, residual=residual)
