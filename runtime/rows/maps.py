"""Per-position answers saved beside the rows: PNG on a fixed scale, NIfTI, or `.npy`.

Scales of the PNGs, the same for every image: a probability p is 255 p; the entropies of a Bernoulli entry are 255 at
ln 2 nats, those of a class head at ln(classes). The class map of a class head holds the class numbers, in a NIfTI file
too. Real-valued heads, outputs beside the four quantities and novelty have no natural scale, and volumes no picture:
they are `.npy`, or NIfTI for a volume that came as NIfTI.
"""

import contextlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from probrt.runtime.bundle.manifest import NOVELTY, NOVELTY_MAP, HeadRecord, Input
from probrt.runtime.errors import StorageError
from probrt.runtime.files import write_atomic, write_whole
from probrt.runtime.images.loader import LoadedImage
from probrt.runtime.images.png import encode_grey_png, encode_png
from probrt.runtime.images.volumes import encode_volume
from probrt.runtime.rows.kinds import KINDS, Values
from probrt.runtime.rows.overlay import can_overlay, draw_novelty, draw_overlay

FORMATS = ("auto", "png", "npy", "nifti", "none")


class Maps(Protocol):
    """Takes the per-position answers for one image, of a head or of novelty, and returns what the row holds of them."""

    def save(
        self, head: HeadRecord, quantities: Mapping[str, Values], *, row: int, input: Input, image: LoadedImage
    ) -> dict[str, Any]: ...

    def save_novelty(self, scores: Values, *, row: int, input: Input, image: LoadedImage) -> dict[str, Any]: ...


@dataclass
class MapFolder:
    """The folder of the maps of a run.

    path: the folder as rows name it. format: one of FORMATS but "none". "auto" is "png" and, for volumes that came as
    NIfTI, "nifti"; "npy" is for all.
    overlay: whether an overlay is saved beside the maps of heads that can have one.
    unfinished: where the files lie until the run has finished; None writes them to `path`, each as a whole.
    """

    path: Path
    format: str
    overlay: bool = False
    unfinished: Path | None = None
    _exists: bool = field(default=False, init=False)

    def save(
        self, head: HeadRecord, quantities: Mapping[str, Values], *, row: int, input: Input, image: LoadedImage
    ) -> dict[str, Any]:
        """Saves the quantities [positions..., outputs] of one image and returns their paths as the row names them.

        One path per quantity, or a list in the order of the labels where it takes several pictures; and the path of
        the overlay. `row` numbers the files.
        Raises StorageError if the disk does not take them.
        """
        with self._open():
            stem = f"{row:06d}.{head.name}"
            paths: dict[str, Any] = {
                name: self._save_quantity(head, name, values, f"{stem}.{name}", image)
                for name, values in quantities.items()
            }
            if self.overlay and can_overlay(head) and image.pixels is not None:
                picture = draw_overlay(image.pixels, input.range, head, quantities)
                paths["overlay"] = self._write(f"{stem}.overlay.png", encode_png(picture))
            return paths

    def save_novelty(self, scores: Values, *, row: int, input: Input, image: LoadedImage) -> dict[str, Any]:
        """Saves the novelty of each position [height, width] of one image as `.npy`; as `save`."""
        with self._open():
            stem = f"{row:06d}.{NOVELTY}"
            paths = {NOVELTY_MAP: self._write(f"{stem}.{NOVELTY_MAP}.npy", encode_array(scores))}
            if self.overlay and image.pixels is not None:
                picture = draw_novelty(image.pixels, input.range, scores)
                paths["overlay"] = self._write(f"{stem}.overlay.png", encode_png(picture))
            return paths

    @contextlib.contextmanager
    def _open(self) -> Iterator[None]:
        """Makes the folder if it is not there; an OSError becomes a StorageError."""
        try:
            if not self._exists:
                (self.unfinished or self.path).mkdir(parents=True, exist_ok=True)
                self._exists = True
            yield
        except OSError as error:
            raise StorageError(f"{error.filename or self.path}: cannot be written: {error.strerror or error}") from None

    def has_lists(self, head: HeadRecord) -> bool:
        """Whether a row lists several paths for each of the four quantities: one picture per label of a pixel."""
        is_picture = self.format in ("auto", "png") and len(head.outputs["mean"]) == 3
        return is_picture and KINDS[head.kind].has_several_pictures(head)

    def _save_quantity(
        self, head: HeadRecord, quantity: str, values: Values, stem: str, image: LoadedImage
    ) -> str | list[str]:
        kind = KINDS[head.kind]
        positions = kind.count_positions(quantity, values)
        if positions == 3 and (self.format == "nifti" or (self.format == "auto" and image.affine is not None)):
            affine = np.eye(4) if image.affine is None else image.affine
            sides = values.shape[:3] if image.pixels is None else image.pixels.shape[:3]
            return self._write(f"{stem}.nii.gz", encode_volume(kind.volume(quantity, values), affine, sides))
        drawable = self.format != "npy" and positions == 2 and quantity not in head.extra
        pictures = kind.pictures(head, quantity, values) if drawable else []
        if not pictures:
            return self._write(f"{stem}.npy", encode_array(values))
        if len(pictures) == 1:
            return self._write(f"{stem}.png", encode_grey_png(pictures[0]))
        return [self._write(f"{stem}.{index}.png", encode_grey_png(picture)) for index, picture in enumerate(pictures)]

    def _write(self, name: str, data: bytes) -> str:
        """Writes a file of the folder and returns its path as rows name it. Raises OSError."""
        if self.unfinished is None:
            write_atomic(self.path / name, data)
        else:
            write_whole(f"{self.unfinished}/{name}", data)
        return f"{self.path}/{name}"


def encode_array(values: Values) -> bytes:
    """A .npy file as bytes."""
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=False)
    return stream.getvalue()
