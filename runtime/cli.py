"""The `probrt` command line: finds the command, runs it, and turns every fault into a line and an exit code."""

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from probrt.runtime.commands.faults import INTERRUPTED, REFUSED, TERMINATED, Terminated, raise_on_sigterm, report_fault
from probrt.runtime.commands.table import Command, find_command, list_commands
from probrt.runtime.errors import UsageError


def main() -> NoReturn:
    """The entry point of the `probrt` script."""
    code = call(sys.argv[1:])
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    sys.stderr.flush()
    if code in (INTERRUPTED, TERMINATED):
        os._exit(code)  # threads may still decode images; what was written is flushed
    sys.exit(code)


def call(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; a fault becomes one line on standard error."""
    words, debug = _split_debug(arguments)
    try:
        with raise_on_sigterm():
            return _dispatch(words)
    except (Exception, KeyboardInterrupt, Terminated) as error:
        return report_fault(error, words[0] if words else "", debug=debug)


def _split_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """The arguments without --debug, and whether it was among them; behind `--` it is a name like any other."""
    words = list(arguments)
    end = words.index("--") if "--" in words else len(words)
    options = [word for word in words[:end] if word != "--debug"]
    return options + words[end:], len(options) < end


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("--help", "-h", "help"):
        print(_overview())
        return 0 if words else REFUSED
    if words[0] == "--version":
        import importlib.metadata

        print(f"probrt {importlib.metadata.version('probrt')}")
        return 0
    command = find_command(words[0])
    if command is None:
        raise UsageError(f"no command {words[0]}; there are: {', '.join(list_commands())}")
    return _run(command, words[1:])


def _run(command: Command, words: list[str]) -> int:
    import typer

    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(command.name)(command.load())
    click_command = typer.main.get_command(app)
    try:
        code = click_command.main(args=words, prog_name=f"probrt {command.name}", standalone_mode=False)
    except typer.Abort:
        raise KeyboardInterrupt from None
    return code if isinstance(code, int) else 0


def _overview() -> str:
    lines = [f"  {name:10} {command.summary}" for name, command in list_commands().items()]
    return "\n".join(
        [
            "Usage: probrt COMMAND [OPTIONS]",
            "",
            "Honest uncertainty from conv nets: train, export once, predict anywhere.",
            "",
            "Commands:",
            *lines,
            "",
            "Options:",
            "  --version  print the version",
            "  --help     print this help, or behind a command its options",
            "  --debug    behind a command: print the traceback of a fault",
        ]
    )
