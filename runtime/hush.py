"""Silences what libraries print by themselves; faults still arrive as exceptions.

The silence holds for the whole process. Silences may overlap, also those of several threads: standard error comes back
when the last one ends.
"""

import contextlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

_lock = threading.Lock()
_depth = 0
_original: int | None = None


@contextlib.contextmanager
def hush() -> Iterator[None]:
    """Drops what is written to file descriptor 2 inside the block.

    TensorFlow and LiteRT announce their kernels and missing GPUs on every start, before any of their settings takes
    effect.
    """
    with contextlib.suppress(AttributeError, ValueError, OSError):
        sys.stderr.flush()
    _enter()
    try:
        yield
    finally:
        _leave()


@contextlib.contextmanager
def hush_libraries() -> Iterator[None]:
    """Drops what libraries print inside the block, and keeps `sys.stderr` for the program itself.

    Decoders of images print in C (libtiff), as Python warnings (Pillow, NumPy) and as logs (Pillow).
    """
    own_stream = sys.stderr
    show_warning = warnings.showwarning
    level = logging.root.manager.disable
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(AttributeError, ValueError, OSError):
            if own_stream.fileno() == 2:
                sys.stderr.flush()
                sys.stderr = stack.enter_context(
                    open(os.dup(2), "w", buffering=1, encoding=own_stream.encoding, errors="backslashreplace")  # noqa: PTH123
                )
        stack.enter_context(hush())
        warnings.showwarning = _drop_warning
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(level)
            warnings.showwarning = show_warning
            with contextlib.suppress(ValueError, OSError):
                sys.stderr.flush()
            sys.stderr = own_stream


def _drop_warning(*details: Any, **named: Any) -> None:
    del details, named


def _enter() -> None:
    global _depth, _original
    with _lock:
        _depth += 1
        if _depth == 1:
            try:
                _original = os.dup(2)
            except OSError:  # there is no standard error
                _original = None
                return
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
            os.close(null)


def _leave() -> None:
    global _depth, _original
    with _lock:
        _depth -= 1
        if _depth == 0 and _original is not None:
            os.dup2(_original, 2)
            os.close(_original)
            _original = None
