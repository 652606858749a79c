"""Silence for what native libraries print on standard error by themselves."""

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def hush() -> Iterator[None]:
    """Drops what anyone writes to file descriptor 2 meanwhile; faults still arrive as exceptions.

    TensorFlow and LiteRT announce their kernels and absent GPUs on every start, before any setting of
    theirs acts. Keep what runs under it short: it holds for the whole process.
    """
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except (OSError, AttributeError, ValueError):  # no standard error at all
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
