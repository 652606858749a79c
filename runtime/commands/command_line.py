"""Finds a command, runs it, and turns every fault into a line and an exit code."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from probrt.runtime.commands.faults import INTERRUPTED, REFUSED, Terminated, raise_on_sigterm, report_fault
from probrt.runtime.commands.table import Command, find_command, list_commands
from probrt.runtime.errors import UsageError


class Escaped(BaseException):
    """Carries a fault past Typer, which ends the program by itself on Ctrl-C and on a closed pipe."""

    def __init__(self, fault: BaseException) -> None:
        super().__init__(fault)
        self.fault = fault


def run_command_line(arguments: Sequence[str]) -> int:
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
        from probrt.runtime.commands.version import format_version

        print(format_version())
        return 0
    command = find_command(words[0])
    if command is None:
        raise UsageError(f"no command {words[0]}; there are: {', '.join(list_commands())}")
    return _run(command, words[1:])


def _run(command: Command, words: list[str]) -> int:
    from probrt.runtime.commands.plain_words import read_plain_words

    function = command.load()
    values = read_plain_words(function, words)
    code = _run_by_typer(command.name, function, words) if values is None else function(**values)
    return code if isinstance(code, int) else 0


def _run_by_typer(name: str, function: Callable[..., Any], words: list[str]) -> Any:
    """Lets Typer read the words, print help and tell faults; returns what the command returns."""
    import typer

    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name)(_carry_past_typer(function))
    click_command = typer.main.get_command(app)
    try:
        code = click_command.main(args=words, prog_name=f"probrt {name}", standalone_mode=False)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except Escaped as escaped:
        raise escaped.fault from None
    if code == INTERRUPTED:  # Typer's own answer to an interrupt while it reads the options
        raise KeyboardInterrupt
    return code


def _carry_past_typer(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function of a command, whose interrupts and closed pipes arrive as `Escaped`."""

    @functools.wraps(function)
    def run(*values: Any, **options: Any) -> Any:
        try:
            return function(*values, **options)
        except (KeyboardInterrupt, BrokenPipeError) as fault:
            raise Escaped(fault) from None

    return run


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
            "  --version  print the version, and those of the engines",
            "  --help     print this help, or behind a command its options",
            "  --debug    behind a command: print the traceback of a fault",
        ]
    )
