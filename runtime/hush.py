"""Silences what native libraries print on standard error by themselves."""

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def hush() -> Iterator[None]:
    """Drops what is written to file descriptor 2 inside the block; faults still arrive as exceptions.

    TensorFlow and LiteRT announce their kernels and missing GPUs on every start, before any of their settings takes
    effect. The silence holds for the whole process, so keep the block short.
    """
    try:
        sys.stderr.flush()
        original = os.dup(2)
    except (OSError, AttributeError, ValueError):  # there is no standard error
        yield
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
    try:
        yield
    finally:
        os.dup2(original, 2)
        os.close(original)
