"""The `probrt` command: one lazy table of commands, and one place where faults become a line and a code."""

import contextlib
import importlib.util
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from probrt.runtime.errors import MissingError, ProbrtError, UsageError, one_line
from probrt.runtime.functions import load_function

GROUP = "probrt.commands"
REFUSED, FAULT, INTERRUPTED, TERMINATED = 2, 3, 130, 143


@dataclass(frozen=True)
class Command:
    """A row of the table: `target` is `module:function`, imported only when the command runs."""

    name: str
    target: str
    summary: str

    @property
    def found(self) -> bool:
        """Whether its function is there, looked up in the module's source without importing it."""
        module, _, function = self.target.partition(":")
        try:
            spec = importlib.util.find_spec(module)
        except ImportError:
            return False
        if spec is None or spec.origin is None:
            return False
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return re.search(rf"^def {function}\(", Path(spec.origin).read_text("utf-8"), re.MULTILINE) is not None
        return True  # no readable source beside it: leave the verdict to the import

    def load(self) -> Callable[..., Any]:
        """Its function; MissingError if it cannot be imported here."""
        try:
            return load_function(self.target)
        except ImportError as error:
            raise MissingError(f"probrt {self.name} cannot run here: {one_line(error)}") from error


COMMANDS = (
    Command("train", "probrt.trainer.cli:train", "fit a probabilistic conv net to labelled images"),
    Command("evaluate", "probrt.trainer.cli:evaluate", "score a trained model on held-out images"),
    Command("adopt", "probrt.trainer.cli:adopt", "turn a model of TFP layers into a trained model"),
    Command("export", "probrt.exporter.cli:export", "turn a trained model into a bundle"),
    Command("predict", "probrt.runtime.commands.predict:predict", "answer images with uncertainty, one row each"),
    Command("inspect", "probrt.runtime.commands.inspect:inspect", "say what a bundle holds"),
    Command("verify", "probrt.runtime.commands.verify:verify", "check every byte of a bundle"),
    Command("bench", "probrt.runtime.commands.bench:bench", "time a bundle's variants on every engine"),
    Command("report", "probrt.runtime.commands.report:report", "make one HTML page of predictions"),
    Command("doctor", "probrt.runtime.commands.doctor:doctor", "list engines and devices, and what is missing"),
)


def commands() -> dict[str, Command]:
    """All commands that are there, by name: our own, then those of the entry-point group."""
    import importlib.metadata  # slow enough to be felt, and not needed for our own commands

    found = {command.name: command for command in COMMANDS if command.found}
    for point in importlib.metadata.entry_points(group=GROUP):
        distribution = point.dist.name if point.dist else "a plug-in"
        found.setdefault(point.name, Command(point.name, point.value, f"(from {distribution})"))
    return found


def main() -> NoReturn:
    """The entry point of the `probrt` script."""
    code = call(sys.argv[1:])
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    sys.stderr.flush()
    if code in (INTERRUPTED, TERMINATED):
        os._exit(code)  # decoding threads may be in the middle of something; what was written is flushed
    sys.exit(code)


def call(arguments: Sequence[str]) -> int:
    """Runs one command line and gives its exit code; every fault becomes one line on standard error."""
    words, debug = _without_debug(arguments)
    previous = _on_terminate()
    try:
        return _dispatch(words)
    except ProbrtError as error:
        return _failed(error, str(error), error.exit_code, debug)
    except KeyboardInterrupt as error:
        return _failed(error, "interrupted", INTERRUPTED, debug)
    except _Terminated as error:
        return _failed(error, "terminated", TERMINATED, debug)
    except BrokenPipeError as error:
        with contextlib.suppress(OSError, ValueError):  # or the interpreter complains when it flushes at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _failed(error, "the reader of the output went away", FAULT, debug)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _failed(error, f"{where}{error.strerror or error}", FAULT, debug)
    except Exception as error:
        usage = getattr(error, "format_message", None)  # of Click's usage errors, wherever Typer keeps them
        if usage is not None:
            name = words[0] if words else ""
            return _failed(error, f"{usage()} See `probrt {name} --help`.", REFUSED, debug)
        kind = type(error).__name__
        return _failed(error, f"internal fault ({kind}: {error}); run again with --debug for details", FAULT, debug)
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)


class _Terminated(BaseException):
    """SIGTERM arrived; a BaseException so that nothing on the way takes it for a fault of its own."""


def _on_terminate() -> Any:
    """Makes SIGTERM unwind the run like Ctrl-C does; gives the previous handler, or None outside the main thread."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    with contextlib.suppress(ValueError):
        return signal.signal(signal.SIGTERM, stop)
    return None


def _without_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    words = list(arguments)
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word != "--debug"]
    return kept + words[end:], len(kept) < end


def _failed(error: BaseException, message: str, code: int, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exception(error)
    print(f"probrt: {one_line(ValueError(message))}", file=sys.stderr)
    return code


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("--help", "-h", "help"):
        print(_overview())
        return 0 if words else REFUSED
    if words[0] == "--version":
        import importlib.metadata

        print(f"probrt {importlib.metadata.version('probrt')}")
        return 0
    command = next((one for one in COMMANDS if one.name == words[0]), None)
    if command is None or not command.found:
        table = commands()
        command = table.get(words[0])
        if command is None:
            raise UsageError(f"no command {words[0]}; there are: {', '.join(table)}")
    return _run(command, words[1:])


def _run(command: Command, words: list[str]) -> int:
    import typer

    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(command.name)(command.load())
    click_command = typer.main.get_command(app)
    try:
        answer = click_command.main(args=words, prog_name=f"probrt {command.name}", standalone_mode=False)
    except typer.Abort:
        raise KeyboardInterrupt from None
    return answer if isinstance(answer, int) else 0


def _overview() -> str:
    lines = [f"  {name:10} {command.summary}" for name, command in commands().items()]
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
            "  --help     print this, or with a command its options",
            "  --debug    with a command: print the traceback of a fault",
        ]
    )
