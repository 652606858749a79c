"""Checks what the types of a manifest alone cannot express."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Final

from probrt.runtime.bundle.manifest import (
    ANSWERS,
    COMBINE_OF,
    NAME,
    NOVELTY,
    ROW_WORDS,
    SIGNATURE,
    FileRecord,
    Format,
    HeadRecord,
    Input,
    Manifest,
    NoveltyRecord,
    PosteriorRecord,
)
from probrt.runtime.errors import BundleError

MAX_INPUT_VALUES: Final = 1 << 28
MAX_SAMPLES: Final = 1 << 16
# What the name of a file says of its format; all others belong to the SavedModel.
FORMAT_OF_SUFFIX: Final[dict[str, Format]] = {".tflite": "tflite", ".onnx": "onnx"}
# Other files that a TensorFlow loader would take for a graph, or for a part of one.
_OTHER_GRAPHS = ("saved_model.pbtxt", "saved_model.cpb")


def check_manifest(manifest: Manifest) -> None:
    """Raises BundleError for the first contradiction in a manifest."""
    _check_input(manifest.input)
    _check_unique("head", [head.name for head in manifest.heads])
    for head in manifest.heads:
        _check_head(head)
    names = {head.name for head in manifest.heads}
    if NOVELTY in names:
        raise BundleError(f"head {NOVELTY}: the name is reserved for the novelty of an image")
    if manifest.novelty is not None:
        _check_novelty(manifest.novelty, manifest.heads)
    compared = names | {NOVELTY} if manifest.novelty else names
    for row in manifest.parity:
        if bool(row.quantity) == bool(row.metric):
            raise BundleError(f"parity of {row.file}: a row of {row.head} names a quantity or a metric")
        if row.head not in compared:
            raise BundleError(f"parity of {row.file}: there is no head {row.head}")
    _check_unique("calibration of head", [calibration.head for calibration in manifest.calibration])
    for calibration in manifest.calibration:
        if calibration.head not in names:
            raise BundleError(f"calibration: there is no head {calibration.head}")
        for low, high in pairwise(calibration.risk):
            if not (low.threshold < high.threshold and low.kept < high.kept and low.risk <= high.risk):
                raise BundleError(f"calibration of {calibration.head}: its risk curve does not rise")
    # On some file systems names that differ in case or in their Unicode form are one file.
    paths = [file.path for file in manifest.listed]
    _check_unique("file", [unicodedata.normalize("NFC", path).casefold() for path in paths])
    if manifest.posterior:
        _check_samples(manifest.posterior)
    bank = manifest.posterior.order if manifest.posterior else []
    _check_unique("draw", [str(index) for index in bank])
    effective = manifest.posterior.effective if manifest.posterior else []
    _check_unique("worth of", [f"{record.draws} draws in {record.precision}" for record in effective])
    if any(record.draws > len(bank) for record in effective):
        raise BundleError(f"posterior: tells the worth of more draws than the {len(bank)} of its bank")
    for file in manifest.files:
        _check_file(file, len(bank))
    _check_chunks(manifest.files)


def _check_samples(posterior: PosteriorRecord) -> None:
    """A plan has an entry for each chunk of draws, so a number without an end would fill the memory."""
    if posterior.max_samples > MAX_SAMPLES:
        raise BundleError(f"posterior: up to {posterior.max_samples} draws; at most {MAX_SAMPLES} are supported")
    if posterior.samples > posterior.max_samples:
        raise BundleError(f"posterior: {posterior.samples} draws by default, but at most {posterior.max_samples}")


def _check_novelty(novelty: NoveltyRecord, heads: Iterable[HeadRecord]) -> None:
    if novelty.map is True:
        raise BundleError("novelty: the map is true; state its sides [height, width], or false")
    if novelty.map and not any(head.per_position and len(head.outputs["mean"]) == 3 for head in heads):
        raise BundleError("novelty: has a map, but no head answers for positions in two dimensions")
    if novelty.map and math.prod(side or 1 for side in novelty.map) > MAX_INPUT_VALUES:
        raise BundleError(f"novelty: a map of {novelty.map}; at most {MAX_INPUT_VALUES} values are supported")


def _check_input(input: Input) -> None:
    if not input.shape:
        raise BundleError("input: an image has at least one side")
    if input.range is not None and not (-math.inf < input.range[0] < input.range[1] < math.inf):
        raise BundleError(f"input: the range {list(input.range)} is empty or has no end; give the lowest value first")
    values = math.prod(side or 1 for side in input.shape)
    if values > MAX_INPUT_VALUES:
        raise BundleError(f"input: an image of {values} values; at most {MAX_INPUT_VALUES} (1 GiB) are supported")


def _check_head(head: HeadRecord) -> None:
    absent = [name for name in ("mean", "aleatoric") if name not in head.outputs]
    if absent:
        raise BundleError(f"head {head.name} has no output {absent[0]}; every head has mean and aleatoric")
    if head.combine != COMBINE_OF[head.kind]:
        raise BundleError(
            f"head {head.name} is of kind {head.kind}, whose uncertainties combine as {COMBINE_OF[head.kind]}, "
            f"not as {head.combine}"
        )
    has_classes = len(head.outputs["mean"]) > len(head.outputs["aleatoric"])
    if head.kind != "real" and has_classes != (head.kind == "class"):
        axis = "has an" if has_classes else "lacks the"
        raise BundleError(f"head {head.name} is of kind {head.kind}, but its mean {axis} axis of classes")
    entries = head.outputs["mean"][-1] if head.outputs["mean"] else None
    if entries is not None and entries != len(head.labels):
        raise BundleError(f"head {head.name} has {len(head.labels)} labels for the {entries} entries of its mean")
    taken = [name for name in head.extra if name in ROW_WORDS]
    if taken:
        raise BundleError(f"head {head.name}: an output may not be named {taken[0]}, which rows have already")


def _check_file(file: FileRecord, bank: int) -> None:
    fault = path_fault(file.path)
    if fault:
        raise BundleError(f"files: {file.path!r} {fault}")
    path = PurePosixPath(file.path)
    if file.format != FORMAT_OF_SUFFIX.get(path.suffix, "savedmodel"):
        raise BundleError(f"files: {file.path!r} is listed as {file.format}, which its name is not")
    if file.format == "savedmodel" and file.precision != "float32":
        raise BundleError(f"files: {file.path!r} is listed as {file.precision}; a SavedModel is float32")
    if path.name in _OTHER_GRAPHS or (path.name == "saved_model.pb" and file.path != "saved_model.pb"):
        raise BundleError(f"files: {file.path!r} is a SavedModel in a place or form that a bundle may not have")
    if file.variant == "draws" and (file.draws is None or sum(file.draws) > bank):
        raise BundleError(f"files: {file.path!r} holds draws {file.draws}, the bank has {bank}")


def _check_chunks(files: Iterable[FileRecord]) -> None:
    """The chunks of one format and precision follow one another from the bank's first draw on."""
    ends: dict[tuple[str, str], int] = {}
    chunks = [(file.draws, file) for file in files if file.variant == "draws" and file.draws is not None]
    for (start, count), file in sorted(chunks, key=lambda chunk: chunk[0]):
        end = ends.get((file.format, file.precision), 0)
        if start != end:
            raise BundleError(f"files: {file.path!r} begins with draw {start} where draw {end} is due")
        ends[file.format, file.precision] = end + count


def _check_unique(what: str, names: Iterable[str]) -> None:
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise BundleError(f"{what} {repeated[0]} is listed twice")


def path_fault(path: str) -> str:
    """Returns why a manifest may not hold a path, or an empty string."""
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or re.match(r"^[A-Za-z]:", path):
        return "is not a relative path"
    if ".." in pure.parts or "\\" in path or str(pure) != path:
        return "is not a plain path inside the bundle"
    if any(not character.isprintable() for character in path):
        return "has a character that cannot be printed"
    if path in (NAME, SIGNATURE, ANSWERS):
        return "has a place of its own in a bundle"
    return ""
