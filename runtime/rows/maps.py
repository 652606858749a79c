"""Per-position answers saved beside the rows: PNG on a fixed scale, NIfTI, or `.npy`.

Scales of the PNGs, the same for every image: a probability p is 255 p; the entropies of a Bernoulli
entry are 255 at ln 2 nats, those of a class head at ln(classes). The class map of a class head holds
the class numbers, in a NIfTI file too. Real-valued heads and outputs beside the four quantities have no
natural scale and volumes no picture: they are `.npy`, or NIfTI for a volume that came as NIfTI.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.manifest import HeadRecord, Input
from probrt.runtime.errors import StorageError
from probrt.runtime.images.loader import Loaded
from probrt.runtime.images.png import encode_grey_png, encode_png
from probrt.runtime.images.volumes import encode_volume
from probrt.runtime.predict.combine import over_classes
from probrt.runtime.rows.overlay import can_overlay, overlay

FORMATS = ("auto", "png", "npy", "nifti", "none")

Values = npt.NDArray[np.float32]


@dataclass
class MapFolder:
    """The folder of a run's maps.

    format: one of FORMATS; "auto" is "png" and, for volumes that came as NIfTI, "nifti"; "npy" is for all.
    overlay: whether a picture lies beside them.
    """

    path: Path
    format: str
    overlay: bool = False
    _made: bool = False

    def save(
        self, head: HeadRecord, answer: Mapping[str, Values], row: int, input: Input, image: Loaded
    ) -> dict[str, Any]:
        """Saves one image's quantities [positions..., outputs] and gives their paths as the row names them.

        One path per quantity, or a list in the order of the labels where it holds several pictures; and the
        overlay's, if asked for and the head has one.
        StorageError if the disk does not take them.
        """
        try:
            if not self._made:
                self.path.mkdir(parents=True, exist_ok=True)
                self._made = True
            stem = f"{self.path}/{row:06d}.{head.name}"
            paths = {name: self._one(head, name, values, f"{stem}.{name}", image) for name, values in answer.items()}
            if self.overlay and can_overlay(head) and image.pixels is not None:
                Path(f"{stem}.overlay.png").write_bytes(encode_png(overlay(image.pixels, input.range, head, answer)))
                paths["overlay"] = f"{stem}.overlay.png"
            return paths
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be written: {error.strerror or error}") from None

    def lists(self, head: HeadRecord) -> bool:
        """Whether the four quantities are lists of pictures: those of several flags per pixel."""
        several = head.combine == "entropy" and not over_classes(head) and head.outputs["mean"][-1] != 1
        return several and self.format in ("auto", "png") and len(head.outputs["mean"]) == 3

    def _one(self, head: HeadRecord, quantity: str, values: Values, stem: str, image: Loaded) -> str | list[str]:
        flat = quantity != "mean" and over_classes(head)
        positions = values.ndim - (0 if flat else 1)
        if positions == 3 and (self.format == "nifti" or (self.format == "auto" and image.affine is not None)):
            return self._nifti(head, quantity, values, stem, image)
        if self.format == "npy" or head.combine == "variance" or positions != 2 or quantity in head.extra:
            with Path(f"{stem}.npy").open("wb") as stream:
                np.save(stream, values, allow_pickle=False)
            return f"{stem}.npy"
        if over_classes(head):
            return _png(_classes(values) if quantity == "mean" else _scaled(values, math.log(len(head.labels))), stem)
        top = 1.0 if quantity == "mean" else math.log(2)
        if values.shape[-1] == 1:
            return _png(_scaled(values[..., 0], top), stem)
        return [_png(_scaled(values[..., i], top), f"{stem}.{i}") for i in range(values.shape[-1])]

    def _nifti(self, head: HeadRecord, quantity: str, values: Values, stem: str, image: Loaded) -> str:
        map: npt.NDArray[np.generic] = values
        if over_classes(head) and quantity == "mean":
            map = _classes(values)
        elif values.ndim == 4 and values.shape[-1] == 1:
            map = values[..., 0]
        affine = np.eye(4) if image.affine is None else image.affine
        sides = values.shape[:3] if image.pixels is None else image.pixels.shape[:3]
        Path(f"{stem}.nii.gz").write_bytes(encode_volume(map, affine, sides))
        return f"{stem}.nii.gz"


def _scaled(values: Values, top: float) -> npt.NDArray[np.uint8]:
    return np.asarray(np.rint(np.clip(values / top, 0.0, 1.0) * 255), np.uint8)


def _classes(values: Values) -> npt.NDArray[np.integer]:
    return np.asarray(values.argmax(axis=-1), np.uint8 if values.shape[-1] <= 256 else np.uint16)


def _png(values: npt.NDArray[np.integer], stem: str) -> str:
    with open(f"{stem}.png", "wb", buffering=0) as stream:  # noqa: PTH123 (a hot path: several files per image)
        stream.write(encode_grey_png(values))
    return f"{stem}.png"
