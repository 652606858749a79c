"""From files to rows: decodes, predicts and writes one row per file, in the order of the input."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import Conformal, Input
from probrt.runtime.errors import ImageError
from probrt.runtime.images.batches import ImageBatch, load_batches
from probrt.runtime.images.loader import LoadedImage, Reader, open_reader
from probrt.runtime.predict.answer import Prediction
from probrt.runtime.predict.choose import Plan
from probrt.runtime.predict.draw_policy import DrawPolicy
from probrt.runtime.predict.effective import count_effective_draws
from probrt.runtime.predict.predictor import Predictor
from probrt.runtime.rows.kinds import KINDS
from probrt.runtime.rows.maps import Maps
from probrt.runtime.rows.novelty import NoveltyRows, is_unknown
from probrt.runtime.rows.numbers import Row
from probrt.runtime.rows.review import Quantities, Review


@dataclass
class Tally:
    """Counts of a run: rows written, error rows, rows of unknown images, rows for review, files of several frames."""

    rows: int = 0
    errors: int = 0
    unknown: int = 0
    review: int = 0
    several_frames: int = 0


@dataclass(frozen=True, kw_only=True)
class RowMaker:
    """Makes the rows of a run.

    plan: what answers. thresholds: by head, of `choose_thresholds`. maps: where per-position answers go; None leaves
    them out. novelty: None if the bundle has none. review: None leaves the flag out. first: how many rows there are
    already, for the numbers of the maps.
    """

    bundle: Bundle
    plan: Plan
    thresholds: Mapping[str, Conformal]
    maps: Maps | None = None
    novelty: NoveltyRows | None = None
    review: Review | None = None
    first: int = 0

    def make(self, image: LoadedImage, prediction: Prediction, index: int) -> Row:
        """The row of the image at `index` of a prediction; an error row if its answer is not finite."""
        if prediction.faults[index]:
            return self.make_error(image, prediction.faults[index])
        quantities = {head: answer.image(index).quantities for head, answer in prediction.heads.items()}
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                heads = self._make_heads(image, quantities)
        except ImageError as error:
            return self.make_error(image, str(error))
        start: Row = {"file": image.name, "sha256": image.sha256, "status": "ok", "error": None}
        novelty = None
        if self.novelty is not None and prediction.novelty is not None:
            novelty = self.novelty.make(prediction.novelty, index)
            if self.maps is not None and prediction.novelty.map is not None:
                scores, row = prediction.novelty.map[index], self.first + image.index
                novelty |= self.maps.save_novelty(scores, row=row, input=self.bundle.manifest.input, image=image)
        draws = int(prediction.draws[index])
        effective = count_effective_draws(self.bundle.manifest, self.plan, draws)
        return self._complete(start | {"draws": draws, "effective_draws": effective}, heads, quantities, novelty)

    def _make_heads(self, image: LoadedImage, quantities: Quantities) -> Row:
        manifest = self.bundle.manifest
        heads: Row = {}
        for head in manifest.heads:
            values = quantities[head.name]
            if not head.per_position:
                heads[head.name] = KINDS[head.kind].row(head, values, self.thresholds.get(head.name))
            elif self.maps is not None:
                row = self.first + image.index
                heads[head.name] = self.maps.save(head, values, row=row, input=manifest.input, image=image)
        return heads

    def make_error(self, image: LoadedImage, reason: str) -> Row:
        """The row of an image without an answer."""
        start: Row = {"file": image.name, "sha256": image.sha256, "status": "error", "error": reason}
        return self._complete(start | {"draws": None, "effective_draws": None}, None, None, None)

    def _complete(self, start: Row, heads: Row | None, quantities: Quantities | None, novelty: Row | None) -> Row:
        plan = self.plan
        row = start | {"engine": plan.engine.name, "precision": plan.precision, "bundle": self.bundle.label}
        if self.novelty is not None:
            row["novelty"] = novelty
        if self.review is not None:
            row["review"] = self.review.needs_review(quantities) or is_unknown(row)
        return row | {"heads": heads}


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run reads, computes and writes.

    names: of the files. open_reader: opens what decodes them, once per thread. write: takes the rows in order.
    on_rows: called with the rows that have just been written. more: whether the predictor has further runs, so that it
    keeps its graphs. readers: threads that read and decode; None is as many as the predictor has.
    """

    names: Iterator[str]
    predictor: Predictor
    answering: DrawPolicy
    rows: RowMaker
    write: Callable[[list[Row]], None]
    on_rows: Callable[[list[Row]], None]
    open_reader: Callable[[Input], AbstractContextManager[Reader]] = open_reader
    more: bool = False
    readers: int | None = None


def predict_files(run: Run) -> Tally:
    """Predicts every file and writes its row.

    The window of the loader and the blocks of batches bound the memory, whatever the number of files.
    """
    tally = Tally()
    predictor = run.predictor
    input = predictor.bundle.manifest.input
    batches = load_batches(
        run.names,
        input,
        predictor.batch_size,
        run.readers or predictor.threads,
        run.answering.regroups,
        run.open_reader,
    )
    waiting: dict[int, Row] = {}

    def write_ready_rows() -> None:
        in_order = []
        while tally.rows in waiting:
            row = waiting.pop(tally.rows)
            tally.rows += 1
            tally.errors += row["status"] == "error"
            tally.unknown += is_unknown(row)
            tally.review += row.get("review", False)
            in_order.append(row)
        if in_order:
            run.write(in_order)
            run.on_rows(in_order)

    for ready in batches:
        for image, row in _make_rows(ready, run):
            waiting[image.index] = row
            tally.several_frames += image.frames > 1
        write_ready_rows()
    return tally


def _make_rows(ready: ImageBatch | LoadedImage | None, run: Run) -> Iterator[tuple[LoadedImage, Row]]:
    if isinstance(ready, LoadedImage):
        yield ready, run.rows.make_error(ready, ready.error)
        return
    answering = run.answering
    answers = answering.flush() if ready is None else answering.push(ready.images, ready.last and not run.more)
    for image, prediction, index in answers:
        yield image, run.rows.make(image, prediction, index)
