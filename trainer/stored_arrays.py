"""Reads arrays from files that nobody vouches for: never a pickle, and never more memory than was agreed on."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import keras
import numpy as np

# How many times the bytes of a network's variables its weights file may hold; the rest is what Keras adds.
_WEIGHTS_FACTOR, _WEIGHTS_MARGIN = 2, 1 << 20


def read_array(path: Path) -> np.ndarray:
    """Returns the numbers of a .npy file, mapped into memory: a header cannot declare more than the file has.

    Raises OSError, ValueError or EOFError if it is not such a file.
    """
    array: np.ndarray = np.lib.format.open_memmap(path, mode="r")
    _check_numbers(array.dtype)
    return array


def read_arrays(path: Path, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Returns the arrays of a .npz file by name.

    sizes: the names that it may hold, and the largest number of entries of each. Raises OSError, ValueError or
    zipfile.BadZipFile if it is not such a file, or holds anything else; reads the headers before the entries.
    """
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            name = member.removesuffix(".npy")
            if name not in sizes:
                raise ValueError(f"it holds {name[:80]!r}, which is none of {', '.join(sizes)}")
            with archive.open(member) as stream:
                shape, dtype = _read_header(stream)
            if math.prod(shape) > sizes[name]:
                raise ValueError(f"{name} has the shape {list(shape)}, more than {sizes[name]} entries")
            _check_numbers(dtype)
            with archive.open(member) as stream:
                arrays[name] = np.lib.format.read_array(stream, allow_pickle=False)
    return arrays


def check_weights_file(path: Path, network: keras.Model, factor: int = _WEIGHTS_FACTOR) -> None:
    """Raises ValueError for an HDF5 file that refers to other files, or holds much more than a network's variables.

    factor: how many times the bytes of the variables it may hold.
    """
    import h5py

    datasets: list[h5py.Dataset] = []

    def collect(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            datasets.append(item)

    def refuse_link(name: str, link: Any) -> None:
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"{name[:80]} is a link")

    with h5py.File(path, "r") as file:
        file.visititems_links(refuse_link)
        file.visititems(collect)
        if outside := [dataset.name for dataset in datasets if dataset.external or dataset.is_virtual]:
            raise ValueError(f"{outside[0][:80]} lies in another file")
        declared = sum(dataset.nbytes for dataset in datasets)
    expected = sum(math.prod(variable.shape) * np.dtype(variable.dtype).itemsize for variable in network.variables)
    if declared > expected * factor + _WEIGHTS_MARGIN:
        raise ValueError(f"it declares {declared} bytes, the network has {expected}")


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    return shape, dtype


def _check_numbers(dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "biuf":
        raise ValueError(f"it holds {dtype}, not numbers")
