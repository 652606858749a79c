"""Arrays as a bundle stores them: small, exact and without a format that could hold more than numbers."""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from probrt.runtime.bundle.manifest import Natural, Record
from probrt.runtime.bundle.manifest_checks import MAX_INPUT_VALUES
from probrt.runtime.errors import BundleError


class StoredArray(Record, frozen=True, kw_only=True):
    """A float32 array: its shape, and its values in C order; 8-bit integers where all values are such."""

    shape: Annotated[list[Natural], Meta(max_length=8)]
    dtype: Literal["float32", "uint8"] = "float32"
    data: bytes

    def read(self) -> npt.NDArray[np.float32]:
        """Returns the array; BundleError if the data have another size than the shape."""
        dtype = np.dtype(self.dtype).newbyteorder("<")
        if len(self.data) != dtype.itemsize * _count(self.shape):
            raise BundleError(f"an array of shape {self.shape} has {len(self.data)} bytes")
        return np.frombuffer(self.data, dtype).astype(np.float32).reshape(self.shape)


def store_array(values: npt.NDArray[np.floating]) -> StoredArray:
    """Returns an array of float32 values, or of values that are exact in float32, as a bundle stores it."""
    exact = values.astype(np.float32)
    with np.errstate(invalid="ignore"):
        integers = exact.astype(np.uint8)
    if np.array_equal(integers.astype(np.float32), exact):
        return StoredArray(shape=list(values.shape), dtype="uint8", data=integers.tobytes())
    return StoredArray(shape=list(values.shape), data=exact.astype("<f4").tobytes())


def enlarge(grids: npt.NDArray[np.float32], shape: Sequence[int]) -> npt.NDArray[np.float32]:
    """Returns images [count, *shape]: every value is that of the nearest point of its grid.

    grids: [count, *smaller sides], of as many dimensions. Raises BundleError for another number of dimensions, for
    empty sides and for more than MAX_INPUT_VALUES values.
    """
    if len(grids.shape) != len(shape) + 1 or 0 in grids.shape or _count(shape) * len(grids) > MAX_INPUT_VALUES:
        raise BundleError(f"images of shape {list(shape)} from grids of shape {list(grids.shape)}")
    for axis, (side, small) in enumerate(zip(shape, grids.shape[1:], strict=True), start=1):
        if side != small:
            grids = grids.take(np.arange(side) * small // side, axis)
    return np.ascontiguousarray(grids)


def _count(shape: Sequence[int]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count
