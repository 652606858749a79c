"""Repeats rows of predictions on an engine, and tells which differ by more than the export's parity allows."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import NOVELTY, QUANTITIES, Manifest
from probrt.runtime.engines.outputs import BFLOAT16_TOLERANCE
from probrt.runtime.engines.table import BUILT_IN
from probrt.runtime.errors import InputError, MissingError, UsageError
from probrt.runtime.predict.choose import Plan, PredictRequest, choose
from probrt.runtime.predict.draw_policy import FixedDraws
from probrt.runtime.predict.predictor import Predictor
from probrt.runtime.rows.earlier import check_labels, count_draws, find_changed_images
from probrt.runtime.rows.novelty import NoveltyRows
from probrt.runtime.rows.numbers import Row
from probrt.runtime.rows.pipeline import RowMaker, Run, predict_files

# Of a value, for a quantity that the export did not compare with the model; and what seven digits of a row leave out.
_UNCOMPARED, _ROUNDING = 1e-4, 1e-6


@dataclass(frozen=True)
class Difference:
    """How far a quantity of one row is from what the row says, and what is allowed."""

    file: str
    quantity: str
    difference: float
    allowed: float


@dataclass
class Replay:
    """What came of repeating rows.

    rows: those that were repeated. engines: the names of the engines that did it. largest: by quantity, the largest
    difference in units of what is allowed. differing: by file, its largest such difference beyond what is allowed.
    faults: by file, why it could not be compared. maps: heads whose values are files, which are not compared.
    """

    rows: int = 0
    engines: list[str] = field(default_factory=list)
    largest: dict[str, Difference] = field(default_factory=dict)
    differing: dict[str, Difference] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    maps: set[str] = field(default_factory=set)


def replay_rows(
    bundle: Bundle, rows: Sequence[Row], *, seed: int | None, precision: str, engine: str, batch_size: int | None = None
) -> Replay:
    """Repeats the good rows of a bundle.

    seed: of their draws; None is the bundle's. engine: its name; "auto" takes one that did not write the rows, if any
    can. An image that has changed, or is gone, becomes a fault.
    Raises InputError if there is no good row, UsageError for rows of another bundle and if nothing gives these draws.
    """
    good = [row for row in rows if row.get("status") == "ok"]
    if not good:
        raise InputError("no good rows to repeat")
    check_labels(good, bundle)
    changed = find_changed_images(good)
    replay = Replay(faults={good[index]["file"]: reason for index, reason in changed.items()})
    unchanged = [row for index, row in enumerate(good) if index not in changed]
    limits = _Limits(bundle.manifest, precision)
    for draws, group in groupby(sorted(unchanged, key=count_draws), count_draws):
        repeated = list(group)
        writers = {str(row.get("engine")) for row in repeated}
        plan = choose_replay(bundle, draws, seed=seed, precision=precision, engine=engine, avoid=writers)
        if plan.engine.name not in replay.engines:
            replay.engines.append(plan.engine.name)
        predictor = Predictor(bundle, plan, batch_size)
        for row, again in zip(repeated, predict_again(predictor, [row["file"] for row in repeated]), strict=True):
            _compare(row, again, limits, replay)
    replay.rows = len(unchanged)
    return replay


def choose_replay(
    bundle: Bundle, draws: int, *, seed: int | None, precision: str, engine: str, avoid: Iterable[str] = ()
) -> Plan:
    """Returns the plan that gives these draws, on an engine that is not among those to avoid if there is one."""

    def request(name: str) -> PredictRequest:
        if not draws:
            return PredictRequest(variant="mean", engine=name, precision=precision)
        return PredictRequest(samples=draws, seed=seed, engine=name, precision=precision)

    if engine == "auto":
        for candidate in BUILT_IN:
            if candidate.installed and candidate.name not in avoid:
                try:
                    return choose(bundle, request(candidate.name))
                except (UsageError, MissingError):
                    continue
    return choose(bundle, request(engine))


def predict_again(predictor: Predictor, names: Sequence[str]) -> list[Row]:
    """Returns the rows of some images, in their order, without maps."""
    rows: list[Row] = []
    predict_files(
        Run(
            names=iter(names),
            predictor=predictor,
            answering=FixedDraws(predictor),
            rows=RowMaker(
                bundle=predictor.bundle,
                plan=predictor.plan,
                thresholds={},
                novelty=None if predictor.bundle.manifest.novelty is None else NoveltyRows(None),
            ),
            write=rows.extend,
            on_rows=lambda written: None,
        )
    )
    return rows


class _Limits:
    """How far quantities may lie apart: each engine may be off by the tolerance of the export's parity."""

    def __init__(self, manifest: Manifest, precision: str) -> None:
        precisions = {file.path: file.precision for file in manifest.files}
        self._tolerances: dict[str, float] = {}
        self._uncompared = BFLOAT16_TOLERANCE if precision == "bfloat16" else _UNCOMPARED
        for record in [] if precision == "bfloat16" else manifest.parity:
            if not record.metric and precisions.get(record.file, "float32") in (precision, "float32"):
                name = f"{record.head}.{record.quantity}"
                self._tolerances[name] = max(self._tolerances.get(name, 0.0), record.tolerance)
        # A score that differs by rounding may pass a calibration image.
        self._step = 1 / (manifest.novelty.images + 1) if manifest.novelty else 0.0

    def allow(self, name: str, largest: float) -> float:
        """Returns the largest difference allowed for a quantity whose largest value is given."""
        tolerance = self._tolerances.get(name, self._uncompared * max(1.0, largest))
        step = 2 * self._step if name == f"{NOVELTY}.p_value" else 0.0
        return 2 * tolerance + _ROUNDING * largest + step


def _compare(row: Row, again: Row, limits: _Limits, replay: Replay) -> None:
    file = row["file"]
    if again["status"] != "ok":
        replay.faults[file] = f"no answer now: {again['error']}"
        return
    for name, value, repeated in _pair_values(row, again, replay):
        if repeated is None or np.shape(value) != np.shape(repeated):
            replay.faults[file] = f"{name} has another shape now"
            continue
        before, after = np.asarray(value, np.float64), np.asarray(repeated, np.float64)
        allowed = limits.allow(name, float(np.abs(before).max(initial=0.0)))
        difference = Difference(file, name, float(np.abs(before - after).max(initial=0.0)), allowed)
        _keep_larger(replay.largest, name, difference)
        if difference.difference > allowed:
            _keep_larger(replay.differing, file, difference)


def _keep_larger(largest: dict[str, Difference], key: str, difference: Difference) -> None:
    old = largest.get(key)
    if old is None or difference.difference / difference.allowed > old.difference / old.allowed:
        largest[key] = difference


def _pair_values(row: Row, again: Row, replay: Replay) -> Iterator[tuple[str, Any, Any]]:
    """Yields the name of each number of a row, its value, and its value now."""
    for head, answer in (row["heads"] or {}).items():
        if isinstance(np.ravel(answer["mean"])[0], str):
            replay.maps.add(head)
            continue
        repeated: Mapping[str, Any] = (again["heads"] or {}).get(head, {})
        for quantity in QUANTITIES:
            if answer.get(quantity) is not None:
                yield f"{head}.{quantity}", answer[quantity], repeated.get(quantity)
    novelty, repeated = row.get(NOVELTY) or {}, again.get(NOVELTY) or {}
    for quantity in ("score", "p_value"):
        if novelty.get(quantity) is not None:
            yield f"{NOVELTY}.{quantity}", novelty[quantity], repeated.get(quantity)
