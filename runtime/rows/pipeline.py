"""The run of `probrt predict`: files in, one row each out, in the order of the input."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import Conformal
from probrt.runtime.images.loader import Batch, Loaded, Loader
from probrt.runtime.predict.adaptive import Answering
from probrt.runtime.predict.predictor import Prediction, Predictor
from probrt.runtime.rows.head_rows import Row, at, head_row
from probrt.runtime.rows.maps import MapFolder
from probrt.runtime.rows.review import Answers, Review
from probrt.runtime.rows.writers import RowWriter


@dataclass
class Tally:
    """What a run came to."""

    rows: int = 0
    errors: int = 0
    review: int = 0
    several_frames: int = 0


class RowMaker:
    """Rows of one run: what is the same in each, and where its maps go.

    promises: of `rows.promises`; first: rows that are there already, behind which the maps' numbers go on.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: str,
        maps: MapFolder | None,
        promises: Mapping[str, Conformal],
        review: Review | None = None,
        first: int = 0,
    ) -> None:
        self._manifest = bundle.manifest
        self._same: Row = {"engine": engine, "bundle": bundle.label}
        self._maps = maps
        self._first = first
        self._review = review
        self._promises = promises

    def good(self, image: Loaded, prediction: Prediction, index: int) -> Row:
        """The row of one image of a batch; an error row if its answer is not finite."""
        if prediction.faults[index]:
            return self.bad(image, prediction.faults[index])
        answers = {head: at(answer, index) for head, answer in prediction.heads.items()}
        heads = {}
        for head in self._manifest.heads:
            if not head.per_position:
                heads[head.name] = head_row(head, answers[head.name], self._promises.get(head.name))
            elif self._maps is not None:
                number = self._first + image.index
                heads[head.name] = self._maps.save(head, answers[head.name], number, self._manifest.input, image)
        row: Row = {"file": image.name, "sha256": image.sha256, "status": "ok", "error": None}
        return self._whole(row | {"draws": int(prediction.draws[index])}, heads, answers)

    def bad(self, image: Loaded, reason: str) -> Row:
        """The row of an image without an answer."""
        row: Row = {"file": image.name, "sha256": image.sha256, "status": "error", "error": reason}
        return self._whole(row | {"draws": None}, None, None)

    def _whole(self, row: Row, heads: Row | None, answers: Answers | None) -> Row:
        flag = {} if self._review is None else {"review": self._review.flagged(answers)}
        return row | self._same | flag | {"heads": heads}


def run(
    names: Iterator[str],
    predictor: Predictor,
    answering: Answering,
    rows: RowMaker,
    writer: RowWriter,
    seen: Callable[[list[Row]], None],
) -> Tally:
    """Predicts every file and writes its row; `seen` is told of the rows as they are written.

    Memory is bounded by the loader's window, whatever the number of files.
    """
    tally = Tally()
    loader = Loader(names, predictor.bundle.manifest.input, predictor.batch_size, predictor.threads)
    waiting: dict[int, Row] = {}

    def write() -> None:
        in_order = []
        while tally.rows in waiting:
            row = waiting.pop(tally.rows)
            tally.rows += 1
            tally.errors += row["status"] == "error"
            tally.review += row.get("review", False)
            in_order.append(row)
        if in_order:
            writer.write(in_order)
            seen(in_order)
            loader.done(tally.rows)

    for ready in chain(loader, (None,)):
        for image, row in _answered(ready, answering, rows):
            waiting[image.index] = row
            tally.several_frames += image.frames > 1
        write()
    return tally


def _answered(ready: Batch | Loaded | None, answering: Answering, rows: RowMaker) -> Iterator[tuple[Loaded, Row]]:
    if isinstance(ready, Loaded):
        yield ready, rows.bad(ready, ready.error)
        return
    answers = answering.flush() if ready is None else answering.push(ready.images, ready.last)
    for image, prediction, index in answers:
        yield image, rows.good(image, prediction, index)
