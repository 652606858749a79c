"""The stored answers of a bundle: what each graph answered at export on a few generated images.

They show damage that digests cannot show once these are computed anew. They do not show who made a bundle: whoever
writes digests anew can write answers anew too.
"""

from collections.abc import Sequence
from math import prod

import msgspec
import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.arrays import StoredArray, enlarge, store_array
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import ANSWERS, Positive, Record
from probrt.runtime.errors import BundleError

# At most so many values of an image are stored; a larger one is enlarged from a grid.
GRID_VALUES = 2048
# How many images are stored, and of inputs of more values than that one alone.
IMAGES = 3
MANY_VALUES = 1 << 20
# So many entries of each row of a larger output are stored, in steps of the golden section: evenly spaced ones would
# all lie in the same column, or in the same phase of a sub-pixel convolution.
ENTRIES = 64
_GOLDEN_SECTION = 0.6180339887


class CallAnswer(Record, frozen=True, kw_only=True):
    """What one call of a graph answered.

    signature: of the SavedModel; "serving_default" for the other formats. scalars: the inputs beside the images.
    outputs: some entries of each row, [images, entries], by name.
    """

    file: str
    signature: str
    scalars: dict[str, int]
    outputs: dict[str, StoredArray]


class Answers(Record, frozen=True, kw_only=True):
    """The content of `answers.json`. shape: of an image; grids: the images [count, *smaller sides]."""

    shape: list[Positive]
    grids: StoredArray
    calls: list[CallAnswer]

    def images(self) -> npt.NDArray[np.float32]:
        """Returns the images, [count, *shape]; BundleError if they cannot be."""
        return enlarge(self.grids.read(), self.shape)


def make_grids(shape: Sequence[int], low: float, high: float) -> npt.NDArray[np.float32]:
    """Returns the images to store for an input of this shape: noise in steps of one, two and four points.

    They are generated, so that a bundle tells nothing of its training images. Values from `low` to `high`, rounded
    where that leaves a hundred of them or more.
    """
    sides = list(shape)
    while prod(sides) > GRID_VALUES and max(sides) > 1:
        largest = sides.index(max(sides))
        sides[largest] = (sides[largest] + 1) // 2
    rng = np.random.default_rng(41)
    images = []
    for step in (1, 2, 4)[: IMAGES if prod(shape) <= MANY_VALUES else 1]:
        coarse = [-(-side // step) for side in sides[:-1]] + sides[-1:]
        noise = rng.uniform(low, high, (1, *coarse)).astype(np.float32)
        images.append(enlarge(noise.round() if high - low >= 100 else noise, sides))
    return np.concatenate(images)


def pick_entries(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Returns what is stored of each row of an array [batch, ...]: [batch, entries].

    Of a larger row ENTRIES entries, and its least, its largest and its average value, which differ by no more than the
    values themselves.
    """
    rows = values.reshape(len(values), -1) if values.size else values.reshape(len(values), 0)
    size = rows.shape[1]
    if size <= ENTRIES:
        return rows
    places = (np.arange(ENTRIES) * _GOLDEN_SECTION % 1.0 * size).astype(np.intp)
    summaries = [rows.min(axis=1), rows.max(axis=1), rows.mean(axis=1, dtype=np.float64).astype(np.float32)]
    return np.concatenate([rows[:, places], np.stack(summaries, axis=1)], axis=1)


def store_outputs(outputs: dict[str, npt.NDArray[np.float32]]) -> dict[str, StoredArray]:
    """Returns the outputs of a call as they are stored."""
    return {name: store_array(pick_entries(values)) for name, values in outputs.items()}


def encode_answers(answers: Answers) -> bytes:
    """Encodes `answers.json`."""
    return msgspec.json.encode(answers) + b"\n"


def read_answers(bundle: Bundle) -> Answers:
    """Reads the stored answers of a bundle; BundleError if it has none, or if they are damaged."""
    record = bundle.manifest.answers
    if record is None:
        raise BundleError(
            f"{bundle.label}: holds no stored answers, because it was exported before probrt stored them; "
            "export it again to check its answers"
        )
    content = bundle.read(record)
    try:
        answers = msgspec.json.decode(content, type=Answers)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BundleError(f"{ANSWERS}: {error}; export the bundle again") from None
    shape = bundle.manifest.input.shape
    if len(shape) != len(answers.shape) or any(
        side not in (None, stored) for side, stored in zip(shape, answers.shape, strict=True)
    ):
        raise BundleError(f"{ANSWERS}: its images have another shape than the input; export the bundle again")
    try:
        answers.images()
    except BundleError as error:
        raise BundleError(f"{ANSWERS}: {error}; export the bundle again") from None
    return answers
