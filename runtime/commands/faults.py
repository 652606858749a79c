"""Turns the fault that ends a command into one line on standard error and an exit code."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType

from probrt.runtime.errors import ProbrtError, printable

REFUSED, FAULT, INTERRUPTED, TERMINATED = 2, 3, 130, 143


class Terminated(BaseException):
    """SIGTERM arrived. A BaseException, so that no handler on the way takes it for a fault of its own."""


@contextlib.contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """Makes SIGTERM raise Terminated, as Ctrl-C raises KeyboardInterrupt; outside the main thread it does nothing."""

    def raise_terminated(number: int, frame: FrameType | None) -> None:
        raise Terminated

    try:
        previous = signal.signal(signal.SIGTERM, raise_terminated)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        if previous is not None:  # None: a handler that was not installed from Python
            signal.signal(signal.SIGTERM, previous)


def report_fault(error: BaseException, command: str, *, debug: bool) -> int:
    """Prints a fault as one line, with `debug` its traceback too, and returns the exit code.

    command: the name of the command, for the hint to its help.
    """
    message, code = _describe(error, command)
    if isinstance(error, BrokenPipeError):
        with contextlib.suppress(OSError, ValueError):  # else the interpreter complains when it flushes at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if debug:
        import traceback

        traceback.print_exception(error)
    print(f"probrt: {printable(message) or type(error).__name__}", file=sys.stderr)
    return code


def _describe(error: BaseException, command: str) -> tuple[str, int]:
    """The message and the exit code of a fault."""
    match error:
        case ProbrtError():
            return str(error), error.exit_code
        case KeyboardInterrupt():
            return "interrupted", INTERRUPTED
        case Terminated():
            return "terminated", TERMINATED
        case BrokenPipeError():
            return "the reader of the output went away", FAULT
        case OSError():
            where = f"{error.filename}: " if error.filename else ""
            return f"{where}{error.strerror or error}", FAULT
    usage = getattr(error, "format_message", None)  # the usage errors of Click, wherever Typer keeps them
    if usage is not None:
        return f"{usage().rstrip('.')}. See `probrt {command} --help`.", REFUSED
    return f"internal fault ({type(error).__name__}: {error}); run again with --debug for details", FAULT
