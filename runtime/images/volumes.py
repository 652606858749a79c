"""Reads NIfTI volumes, for training and prediction, and writes the maps that answer them.

The voxel grid is turned to the closest canonical orientation (left to right, back to front, feet to head) and returned
as [depth, height, width, channels], depth from feet to head. Values are scaled by the slope and intercept of the
header. The grid is not resampled: the caller makes voxel sizes agree. A map is turned back to the voxel grid of the
file that it answers.
"""

import gzip
import io
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probrt.runtime.errors import ImageError, MissingError, one_line

GZIP = b"\x1f\x8b"
MAX_BYTES = 1 << 30
_HEADERS = {size.to_bytes(4, order) for size in (348, 540) for order in ("little", "big")}


def is_volume(data: bytes) -> bool:
    """Whether bytes begin as a NIfTI file or a compressed file does."""
    return data[:2] == GZIP or data[:4] in _HEADERS


def decode_volume(data: bytes) -> npt.NDArray[np.float32]:
    """Decodes voxels, float32 [depth, height, width, channels]; ImageError if the file is damaged or too large."""
    return read_volume(data)[0]


def read_volume(data: bytes) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Returns the voxels of `decode_volume`, and the affine [4, 4] from the file's voxel indices to millimetres."""
    nibabel = _import_nibabel()
    if data[:2] == GZIP:
        data = _inflate(data)
    try:
        kind = nibabel.Nifti2Image if data[:4] in {(540).to_bytes(4, o) for o in ("little", "big")} else None
        loaded = (kind or nibabel.Nifti1Image).from_stream(io.BytesIO(data))
        if not 3 <= len(loaded.shape) <= 4 or np.prod(loaded.shape, dtype=object) * 4 > MAX_BYTES:
            raise ImageError(
                f"a volume of shape {list(loaded.shape)}; three axes and channels, at most 1 GiB, are read"
            )
        voxels = np.asarray(nibabel.as_closest_canonical(loaded).dataobj, dtype=np.float32)
        if voxels.ndim == 3:
            voxels = voxels[..., np.newaxis]
        voxels = voxels.transpose(2, 1, 0, 3)  # a damaged file may hold fewer axes than its header states
        affine = np.array(loaded.affine, np.float64)
    except ImageError:
        raise
    except Exception as error:  # a hostile header can raise almost any exception
        raise ImageError(f"not a readable NIfTI volume: {one_line(error)}") from None
    return np.ascontiguousarray(voxels), affine


def encode_volume(values: npt.NDArray[np.generic], affine: npt.NDArray[np.float64], sides: Sequence[int]) -> bytes:
    """Encodes a map as a compressed NIfTI file, on the voxel grid of the volume that it answers.

    values: [depth, height, width] or [depth, height, width, outputs]. The affine of a coarser map is scaled.
    affine: of the volume, from `read_volume`.
    sides: [depth, height, width] of the volume.
    """
    nibabel = _import_nibabel()
    orientations = nibabel.orientations
    turn = orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], orientations.io_orientation(affine))
    grid = orientations.apply_orientation(values.transpose(2, 1, 0, *range(3, values.ndim)), turn)
    full_shape = orientations.apply_orientation(np.empty(tuple(sides)[::-1], bool), turn).shape
    factors = np.array(full_shape) / grid.shape[:3]
    scaling = np.diag([*factors, 1.0])
    scaling[:3, 3] = (factors - 1) / 2  # the centre of a coarser voxel
    return gzip.compress(nibabel.Nifti1Image(grid, affine @ scaling).to_bytes(), 1, mtime=0)


def _import_nibabel() -> Any:
    try:
        import nibabel
    except ImportError:
        raise MissingError("NIfTI needs nibabel: pip install 'probrt[volumes]'") from None
    return nibabel


def _inflate(data: bytes) -> bytes:
    inflater = zlib.decompressobj(wbits=31)
    try:
        inflated = inflater.decompress(data, MAX_BYTES)
    except zlib.error as error:
        raise ImageError(f"not a readable gzip file: {one_line(error)}") from None
    if not inflater.eof:
        raise ImageError("a gzip file that is cut off, or holds more than 1 GiB")
    return inflated
