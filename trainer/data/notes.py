"""Notes on data that can be meant as they are, and seldom are: one line each, for the end of the summary."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from PIL import Image

from probrt.runtime.bundle.manifest import Input, Kind
from probrt.runtime.images.budgets import MAX_PIXELS
from probrt.runtime.images.decode import FORMATS
from probrt.trainer.data.examples import Examples
from probrt.trainer.heads import AnyHead

_FEW_ROWS = 20
# By how much the channels of a grey picture may differ: JPEG rounds them apart.
_GREY = 16


def note_targets(splits: dict[str, Examples], heads: Sequence[AnyHead]) -> list[str]:
    """Notes few rows, splits without a target, and training targets that are all the same."""
    notes = []
    count = sum(map(len, splits.values()))
    if count < _FEW_ROWS:
        notes.append(f"{count} rows are few: scores and calibration of so few mean little")
    for head in heads:
        notes += _CONSTANT[head.kind](head, splits["train"].targets[head.name])
        if not has_targets(head, splits["validation"]):
            notes.append(
                f"{head.name}: no row of the validation split has a target: the head is neither measured nor calibrated"
            )
    return notes


def has_targets(head: AnyHead, examples: Examples) -> bool:
    """Whether any example has a target of the head, at some position."""
    return bool(head.is_known(examples.targets[head.name]).numpy().any())


def _note_one_class(head: AnyHead, targets: np.ndarray) -> list[str]:
    counts = head.count_classes(targets)
    present = [label for label, count in counts.items() if count]
    if len(present) == 1:
        return [_constant(head, head.name, present[0])]
    absent = [label for label, count in counts.items() if not count]
    return [f"{head.name}: no training example of {', '.join(absent)}"] if absent else []


def _note_constant_flags(head: AnyHead, targets: np.ndarray) -> list[str]:
    if not head.per_position:
        return _note_constant_values(head, targets)
    known = targets[np.isfinite(targets)]
    if known.size and (known == known[0]).all():
        return [
            f"{head.name}: every training mask is {'full' if known[0] else 'empty'}: the head can learn nothing else"
        ]
    return []


def _note_constant_values(head: AnyHead, targets: np.ndarray) -> list[str]:
    notes = []
    names = head.names if len(head.names) > 1 else (head.name,)
    for name, column in zip(names, targets.reshape(-1, targets.shape[-1]).T, strict=False):
        known = column[np.isfinite(column)]
        if known.size and (known == known[0]).all():
            output = name if name == head.name else f"{head.name}: {name}"
            notes.append(_constant(head, output, f"{known[0]:g}"))
    return notes


def _constant(head: AnyHead, output: str, value: str) -> str:
    examples = "labelled position of the training examples" if head.per_position else "training example"
    return f"{output}: every {examples} is {value}: the head can learn nothing else"


_CONSTANT: Final[dict[Kind, Callable[[AnyHead, np.ndarray], list[str]]]] = {
    "class": _note_one_class,
    "binary": _note_constant_flags,
    "real": _note_constant_values,
}


def note_copies(
    names: Sequence[str],
    splits: Sequence[str],
    digests: Sequence[bytes],
    targets: dict[str, np.ndarray],
    heads: Sequence[AnyHead],
) -> list[str]:
    """Notes files with the same bytes in two splits, which flatter the scores, or with two different targets.

    names, splits, digests: of each row; the digest is that of the image's file, empty where there is none.
    """
    first: dict[bytes, int] = {}
    copies = [
        (first[digest], place)
        for place, digest in enumerate(digests)
        if digest and first.setdefault(digest, place) != place
    ]
    notes = []
    shared = [(earlier, later) for earlier, later in copies if splits[earlier] != splits[later]]
    if shared:
        earlier, later = shared[0]
        notes.append(
            f"{_count_files(shared)} byte for byte in two splits, such as {names[earlier]} ({splits[earlier]}) and "
            f"{names[later]} ({splits[later]}); use data.group to keep copies together"
        )
    for head in heads:
        values = targets[head.name]
        if head.per_position or not copies:
            continue
        known = head.is_known(values).numpy()
        other = [
            (earlier, later)
            for earlier, later in copies
            if known[earlier] and known[later] and not np.array_equal(values[earlier], values[later])
        ]
        if other:
            earlier, later = other[0]
            shown = [f"{names[place]} ({head.describe_target(values[place])})" for place in (earlier, later)]
            notes.append(
                f"{head.name}: {len(other)} file{'s have' if len(other) > 1 else ' has'} the same bytes as another and "
                f"another target, such as {' and '.join(shown)}"
            )
    return notes


def _count_files(pairs: Sequence[tuple[int, int]]) -> str:
    return "1 file is" if len(pairs) == 1 else f"{len(pairs)} files are"


class PictureSurvey:
    """Looks at some picture files for what decoding loses: colours, and the values of 16-bit files."""

    def __init__(self, input: Input) -> None:
        self.input = input
        self._looked = self._coloured = 0
        self._deep_peaks: list[float] = []
        self._lock = threading.Lock()

    def look(self, data: bytes) -> None:
        """Looks at the bytes of a file; those that are no picture tell nothing."""
        if self.input.colour == "none":
            return
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                if picture.width * picture.height > MAX_PIXELS or picture.mode == "F":
                    return
                deep_peak = float(np.asarray(picture).max()) if picture.mode.startswith("I") else None
                coloured = deep_peak is None and picture.mode not in ("1", "L", "LA") and has_colour(picture)
        except Exception:  # Pillow's decoders raise almost anything; the reader names the faults of files
            return
        with self._lock:
            self._looked += 1
            self._coloured += coloured
            if deep_peak is not None:
                self._deep_peaks.append(deep_peak)

    def notes(self) -> list[str]:
        """Returns what the pictures and the settings of the input do not agree about."""
        notes = []
        if self.input.colour == "grey" and self._coloured:
            notes.append(
                f"{self._coloured} of {self._looked} pictures looked at have colours, and input.colour is grey: the "
                'model does not see them; for colours set input.colour = "rgb" and 3 channels in input.shape'
            )
        high = self.input.range[1] if self.input.range else None
        peak = max(self._deep_peaks, default=0.0)
        if self._looked and len(self._deep_peaks) == self._looked and 0 < peak <= 4095 and high in (255.0, 65535.0):
            remedy = "set input.range = [0, 4095]" if peak > 255 else "write them as 8-bit pictures"
            notes.append(f"no value of the 16-bit pictures is above {peak:g}; {remedy}")
        return notes


def has_colour(picture: Image.Image) -> bool:
    """Whether more than a hundredth of the pixels are coloured."""
    pixels = np.asarray(picture.convert("RGB"), np.int16)
    return bool((pixels.max(axis=-1) - pixels.min(axis=-1) > _GREY).mean() > 0.01)
