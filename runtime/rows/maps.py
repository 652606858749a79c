"""Per-position answers saved beside the rows: PNG on a fixed scale, NIfTI, or `.npy`.

Scales of the PNGs, the same for every image: a probability p is 255 p; the entropies of a Bernoulli entry are 255 at
ln 2 nats, those of a class head at ln(classes). The class map of a class head holds the class numbers, in a NIfTI file
too. Real-valued heads and outputs beside the four quantities have no natural scale, and volumes no picture: they are
`.npy`, or NIfTI for a volume that came as NIfTI.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from probrt.runtime.bundle.manifest import HeadRecord, Input
from probrt.runtime.errors import StorageError
from probrt.runtime.images.loader import LoadedImage
from probrt.runtime.images.png import encode_grey_png, encode_png
from probrt.runtime.images.volumes import encode_volume
from probrt.runtime.rows.kinds import KINDS, Picture, Values
from probrt.runtime.rows.overlay import can_overlay, draw_overlay

FORMATS = ("auto", "png", "npy", "nifti", "none")


@dataclass
class MapFolder:
    """The folder of the maps of a run.

    format: one of FORMATS but "none". "auto" is "png" and, for volumes that came as NIfTI, "nifti"; "npy" is for all.
    overlay: whether an overlay is saved beside the maps of heads that can have one.
    """

    path: Path
    format: str
    overlay: bool = False
    _exists: bool = field(default=False, init=False)

    def save(
        self, head: HeadRecord, quantities: Mapping[str, Values], *, row: int, input: Input, image: LoadedImage
    ) -> dict[str, Any]:
        """Saves the quantities [positions..., outputs] of one image and returns their paths as the row names them.

        One path per quantity, or a list in the order of the labels where it takes several pictures; and the path of
        the overlay. `row` numbers the files.
        Raises StorageError if the disk does not take them.
        """
        try:
            if not self._exists:
                self.path.mkdir(parents=True, exist_ok=True)
                self._exists = True
            stem = f"{self.path}/{row:06d}.{head.name}"
            paths: dict[str, Any] = {
                name: self._save_quantity(head, name, values, f"{stem}.{name}", image)
                for name, values in quantities.items()
            }
            if self.overlay and can_overlay(head) and image.pixels is not None:
                picture = draw_overlay(image.pixels, input.range, head, quantities)
                Path(f"{stem}.overlay.png").write_bytes(encode_png(picture))
                paths["overlay"] = f"{stem}.overlay.png"
            return paths
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be written: {error.strerror or error}") from None

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
            Path(f"{stem}.nii.gz").write_bytes(encode_volume(kind.volume(quantity, values), affine, sides))
            return f"{stem}.nii.gz"
        drawable = self.format != "npy" and positions == 2 and quantity not in head.extra
        pictures = kind.pictures(head, quantity, values) if drawable else []
        if not pictures:
            with Path(f"{stem}.npy").open("wb") as stream:
                np.save(stream, values, allow_pickle=False)
            return f"{stem}.npy"
        if len(pictures) == 1:
            return _save_picture(pictures[0], stem)
        return [_save_picture(picture, f"{stem}.{index}") for index, picture in enumerate(pictures)]


def _save_picture(picture: Picture, stem: str) -> str:
    with open(f"{stem}.png", "wb", buffering=0) as stream:  # noqa: PTH123 (a hot path: several files per image)
        stream.write(encode_grey_png(picture))
    return f"{stem}.png"
