"""Damage of bundles whose digests are computed anew, so that only what is done with the content can tell."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import Manifest


def damage_bytes(content: bytes, seed: int) -> bytes:
    """Returns the bytes with one bit flipped, eight bytes random, up to 64 bytes less, or the end cut off."""
    rng = np.random.default_rng([seed, len(content)])
    data, place = bytearray(content), int(rng.integers(len(content)))
    match seed % 4:
        case 0:
            data[place] ^= 1 << int(rng.integers(8))
        case 1:
            data[place : place + 8] = rng.bytes(len(data[place : place + 8]))
        case 2:
            del data[place : place + int(rng.integers(1, 65))]
        case _:
            del data[place:]
    return bytes(data)


def damage_file(bundle: Bundle, folder: Path, name: str, seed: int) -> Bundle:
    """Writes the damaged file into a copy of the bundle; the manifest states the digest and size of the damage."""
    content = damage_bytes((bundle.path / name).read_bytes(), seed)
    shutil.copytree(bundle.path, folder, dirs_exist_ok=True)
    (folder / name).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    files = [
        msgspec.structs.replace(file, bytes=len(content), sha256=digest) if file.path == name else file
        for file in bundle.manifest.files
    ]
    return Bundle(folder, msgspec.structs.replace(bundle.manifest, files=files))


ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    3,
    0.5,
    2**31,
    2**63,
    -1e308,
    1e308,
    "",
    "x",
    "mean",
    "draws",
    [],
    {},
    [1],
    [[]],
]


def damage_manifest(manifest: Manifest, seed: int) -> bytes:
    """Returns the JSON of a manifest, without its own digest, in which one value is replaced, removed or repeated."""
    raw = json.loads(msgspec.json.encode(manifest))
    del raw["sha256"]
    rng = np.random.default_rng(seed)
    places = list(_walk(raw))
    holder, key = places[int(rng.integers(len(places)))]
    match int(rng.integers(4)):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, list):
            holder.insert(0, holder[key])
        case 2 if isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
            holder[key] += int(rng.integers(-2, 3))
        case _:
            holder[key] = ODD[int(rng.integers(len(ODD)))]
    return json.dumps(raw).encode()


def _walk(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yields the place of every value inside a value: what holds it, and its key there."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _walk(value[key])
