"""The novelty of a model directory: the names in model.json, the numbers in novelty.npz."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

import numpy as np
from msgspec import Meta, Struct

from probrt.trainer.novelty.fit import (
    MAX_CALIBRATION,
    MAX_DIRECTIONS,
    MAX_FEATURES,
    MAX_PROTOTYPES,
    MIN_IMAGES,
)
from probrt.trainer.novelty.pool import count_sets
from probrt.trainer.novelty.score import Method, Novelty, PositionNovelty, StageDistance
from probrt.trainer.novelty.stages import MAX_STAGES, StageRef

# Of each stage, with the largest number of entries.
_SIZES = {
    "centre": MAX_FEATURES,
    "inverse_deviation": MAX_FEATURES,
    "directions": MAX_FEATURES * MAX_DIRECTIONS,
    "prototypes": MAX_PROTOTYPES * MAX_DIRECTIONS,
    "spreads": MAX_DIRECTIONS,
    "residual": 1,
}
# Of each set of pooled features as well; models of before lack it.
_RADII = "radii"
# Begins the names of the arrays of the novelty of positions.
_MAP = "map."


Stages = Annotated[list[StageRef], Meta(min_length=1, max_length=MAX_STAGES)]
# Of each stage, two maps.
PooledStages = Annotated[list[StageRef], Meta(min_length=1, max_length=2 * MAX_STAGES)]


class NoveltyEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What model.json says of novelty.npz.

    fitted: the number of training images behind it. map: the stages of the novelty of positions; null without.
    """

    method: Method
    stages: PooledStages
    fitted: Annotated[int, Meta(ge=MIN_IMAGES)]
    map: Stages | None = None

    @property
    def has_radii(self) -> bool:
        """Whether each prototype has its own spread."""
        return self.method != "nearest prototype, whitened"

    @classmethod
    def of(cls, novelty: Novelty) -> Self:
        """Returns the entry of a novelty."""
        positions = list(novelty.map.stages) if novelty.map else None
        return cls(method=novelty.method, stages=list(novelty.stages), fitted=novelty.fitted, map=positions)


def list_sizes(entry: NoveltyEntry) -> dict[str, int]:
    """Returns the names of the arrays of novelty.npz, and the largest number of entries of each."""
    sizes = {"weights": 2 * MAX_STAGES, "offset": 1, "scores": MAX_CALIBRATION, "width": 1}
    prefixes = [f"{index}." for index in range(count_sets(entry.stages))]
    if entry.has_radii:
        sizes |= {f"{prefix}{_RADII}": MAX_PROTOTYPES for prefix in prefixes}
    if entry.map is not None:
        sizes |= {f"{_MAP}weights": MAX_STAGES, f"{_MAP}offset": 1}
        prefixes += [f"{_MAP}{index}." for index in range(len(entry.map))]
    return sizes | {f"{prefix}{name}": size for prefix in prefixes for name, size in _SIZES.items()}


def to_arrays(novelty: Novelty) -> dict[str, Any]:
    """Returns the arrays of novelty.npz by name."""
    arrays: dict[str, Any] = {
        "weights": novelty.weights,
        "offset": np.float32(novelty.offset),
        "scores": novelty.scores,
        "width": np.float32(novelty.width),
    }
    arrays |= _name_distances("", novelty.distances)
    arrays |= {
        f"{index}.{_RADII}": distance.radii
        for index, distance in enumerate(novelty.distances)
        if distance.radii is not None
    }
    if novelty.map is not None:
        arrays |= {f"{_MAP}weights": novelty.map.weights, f"{_MAP}offset": np.float32(novelty.map.offset)}
        arrays |= _name_distances(_MAP, novelty.map.distances)
    return arrays


def _name_distances(prefix: str, distances: Sequence[StageDistance]) -> dict[str, Any]:
    return {
        f"{prefix}{index}.{name}": np.asarray(getattr(distance, name), np.float32)
        for index, distance in enumerate(distances)
        for name in _SIZES
    }


def make_novelty(entry: NoveltyEntry, stored: Mapping[str, np.ndarray]) -> Novelty:
    """Returns the novelty that the arrays of novelty.npz hold.

    Raises ValueError or KeyError for numbers that are missing, misshapen or impossible.
    """
    arrays = {name: np.asarray(array, np.float32) for name, array in stored.items()}
    if wrong := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
        raise ValueError(f"{wrong[0]} holds values that are not finite")
    scores, width = arrays["scores"], float(arrays["width"])
    if scores.ndim != 1 or not MIN_IMAGES <= len(scores) <= MAX_CALIBRATION:
        raise ValueError(f"it has {scores.size} scores; {MIN_IMAGES} to {MAX_CALIBRATION} are possible")
    if not width > 0:
        raise ValueError(f"the width {width:g} is not above 0")
    sets = count_sets(entry.stages)
    return Novelty(
        stages=tuple(entry.stages),
        distances=tuple(
            _add_radii(distance, arrays[f"{index}.{_RADII}"]) if entry.has_radii else distance
            for index, distance in enumerate(_make_distances(arrays, "", sets))
        ),
        weights=_read_weights(arrays, "weights", sets),
        offset=float(arrays["offset"]),
        scores=np.sort(scores),
        width=width,
        fitted=entry.fitted,
        map=None if entry.map is None else _make_positions(entry.map, arrays),
    )


def _add_radii(distance: StageDistance, radii: np.ndarray) -> StageDistance:
    if radii.shape != (len(distance.prototypes),) or not (radii > 0).all():
        raise ValueError(f"the radii are not one above 0 for each of {len(distance.prototypes)} prototypes")
    return dataclasses.replace(distance, radii=radii)


def _make_positions(stages: Sequence[StageRef], arrays: Mapping[str, np.ndarray]) -> PositionNovelty:
    return PositionNovelty(
        stages=tuple(stages),
        distances=_make_distances(arrays, _MAP, len(stages)),
        weights=_read_weights(arrays, f"{_MAP}weights", len(stages)),
        offset=float(arrays[f"{_MAP}offset"]),
    )


def _read_weights(arrays: Mapping[str, np.ndarray], name: str, stages: int) -> np.ndarray:
    weights = arrays[name]
    if weights.shape != (stages,) or not (weights > 0).all():
        raise ValueError(f"the {name} {weights.tolist()} are not one above 0 for each of {stages} stages")
    return weights


def _make_distances(arrays: Mapping[str, np.ndarray], prefix: str, stages: int) -> tuple[StageDistance, ...]:
    return tuple(_make_distance(arrays, f"{prefix}{index}") for index in range(stages))


def _make_distance(arrays: Mapping[str, np.ndarray], stage: str) -> StageDistance:
    values = {name: arrays[f"{stage}.{name}"] for name in _SIZES}
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
            raise ValueError(f"{stage}.{name} has the shape {list(values[name].shape)}, not {list(shape)}")
    residual = float(values.pop("residual"))
    if residual < 0 or not (values["inverse_deviation"] > 0).all() or not (values["spreads"] > 0).all():
        raise ValueError(f"a scale of stage {stage} is not above 0")
    return StageDistance(**values, residual=residual)
