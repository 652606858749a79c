"""Files in object stores and other places that fsspec has drivers for: s3://, gs://, az://, http://, memory://."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from probrt.runtime.errors import ImageError, InputError, MissingError, UsageError, one_line
from probrt.runtime.images.decode import MAX_BYTES, read_bytes
from probrt.runtime.images.inputs import LISTS, SkippedFiles, find_images, is_image_name, is_url

# How often a file is asked for that arrives cut short.
TRIES = 3


def open_store(url: str) -> tuple[Any, str]:
    """Returns the fsspec file system of an address and the path in it.

    Raises MissingError without fsspec or the driver of the store, UsageError for an unknown kind of address.
    """
    protocol = url.partition("://")[0]
    try:
        import fsspec
    except ImportError:
        raise MissingError(f"{url}: reading from stores needs fsspec: pip install 'probrt[ray]'") from None
    try:
        store, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise MissingError(f"{url}: no driver for {protocol}:// is installed here: {one_line(error)}") from None
    except ValueError as error:
        raise UsageError(f"{url}: {one_line(error)}") from None
    return store, path


def open_local(folder: str) -> tuple[Any, str]:
    """Returns the fsspec file system of a local folder and its path; MissingError without fsspec."""
    store, _ = open_store("file:///")
    return store, os.path.abspath(folder)  # noqa: PTH100 (a plain string, as fsspec takes it)


def find_stored_images(
    names: Iterable[str], skipped: SkippedFiles, avoid: Iterable[Path] = (), recursive: bool = True
) -> Iterator[str]:
    """Yields the names of images like `find_images`, which it calls for local names; addresses may be among them.

    An address names a file, a folder or a glob. Raises InputError for one that does not exist or cannot be listed.
    """
    avoided = list(avoid)
    for name in names:
        if is_url(name):
            yield from _find_at(name, skipped, recursive)
        else:
            yield from find_images([name], skipped, avoided, recursive)


def _find_at(url: str, skipped: SkippedFiles, recursive: bool) -> Iterator[str]:
    store, path = open_store(url)
    try:
        if glob.has_magic(path):
            yield from (
                store.unstrip_protocol(address) for address in sorted(store.glob(path)) if store.isfile(address)
            )
            return
        if store.isdir(path):
            for address in sorted(store.find(path, maxdepth=None if recursive else 1)):
                if is_image_name(address):
                    yield store.unstrip_protocol(address)
                else:
                    skipped.add(os.path.splitext(address)[1].lower() or "without suffix")  # noqa: PTH122 (no local path)
            return
        exists = store.exists(path)
    except Exception as error:  # every driver has exceptions of its own
        raise InputError(f"{url}: cannot be listed: {one_line(error)}") from None
    if not exists:
        raise InputError(f"{url}: no such file or folder; name images that exist")
    if os.path.splitext(path)[1].lower() in LISTS:  # noqa: PTH122 (no local path)
        raise InputError(f"{url}: lists are read from local files; copy it here, its names may be addresses")
    yield url


def read_anywhere(name: str) -> bytes:
    """Returns the bytes of a local file or of an address; ImageError if that fails or if a part is missing."""
    return read_stored(name) if is_url(name) else read_bytes(name)


def read_stored(url: str) -> bytes:
    """Returns the bytes at an address; ImageError if that fails.

    A store may end an answer early without an error, so the length is compared with the one that the store states.
    """
    try:
        store, path = open_store(url)
        size = store.info(path)["size"]
        if size is not None and size > MAX_BYTES:
            raise ImageError(f"{size} bytes; at most {MAX_BYTES} are read")
        data = b""
        for _ in range(TRIES):
            data = bytes(store.cat_file(path))
            if size is None or len(data) == size:
                return data
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError("cannot be read: no such file in the store") from None
    except Exception as error:  # every driver has exceptions of its own
        raise ImageError(f"cannot be read: {one_line(error)}") from None
    raise ImageError(f"cannot be read: the store answers {len(data)} of {size} bytes")
