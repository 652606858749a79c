"""The entry point of the `probrt` script. It imports nothing until it can report an interrupt in one line."""

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn


def main() -> NoReturn:
    """Runs the command line of this process."""
    try:
        code = call(sys.argv[1:])
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.flush()
    except KeyboardInterrupt:  # while modules are imported, or while the command ends
        os.write(2, b"probrt: interrupted\n")
        code = 130
    if code in (130, 143):
        os._exit(code)  # threads may still decode images; what was written is flushed
    sys.exit(code)


def call(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; a fault becomes one line on standard error."""
    from probrt.runtime.commands.command_line import run_command_line

    return run_command_line(arguments)
