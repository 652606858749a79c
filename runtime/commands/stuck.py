"""Ends a command that a signal cannot reach because a native library does not return."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

from probrt.runtime.commands.faults import INTERRUPTED, TERMINATED

# Seconds that a command has to end by itself after a signal.
GRACE = 8.0
_CODES: dict[int, int] = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}


@contextlib.contextmanager
def end_when_stuck() -> Iterator[None]:
    """Ends the process if the block goes on for GRACE seconds after SIGINT or SIGTERM.

    Python's handlers of signals run between two steps of the main thread, which a graph that loops without end never
    reaches. The interpreter tells a second thread at once, by a pipe, as long as the native code releases its lock.
    """
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    try:
        previous = signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    except ValueError:  # not the main thread
        os.close(readable)
        os.close(writable)
        yield
        return
    ended = threading.Event()
    messages = _duplicate_stderr()
    watcher = threading.Thread(target=_watch, args=(readable, messages, ended), name="stuck", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(previous)
        os.close(writable)  # the watcher reads the end
        watcher.join()
        os.close(readable)
        os.close(messages)


def _duplicate_stderr() -> int:
    """Returns a descriptor of standard error that stays while `hush` takes away the one that libraries know."""
    try:
        return os.dup(2)
    except OSError:  # there is no standard error
        return os.open(os.devnull, os.O_WRONLY)


def _watch(readable: int, messages: int, ended: threading.Event) -> None:
    while signals := os.read(readable, 1):
        code = _CODES.get(signals[0])
        if code is not None and not ended.wait(GRACE):
            with contextlib.suppress(OSError):
                word = "interrupted" if code == INTERRUPTED else "terminated"
                os.write(messages, f"probrt: {word} inside a call that does not come to an end\n".encode())
            os._exit(code)
