"""`probrt completion`: a script that completes commands and options in a shell."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from probrt.runtime.commands.table import list_commands
from probrt.runtime.errors import ProbrtError, UsageError


@dataclass(frozen=True)
class Option:
    """One option: its names, such as `--out`, its help, and whether a value follows it."""

    names: tuple[str, ...]
    help: str
    takes_value: bool


@dataclass(frozen=True)
class CommandWords:
    """A command with what can be completed behind it."""

    name: str
    summary: str
    options: tuple[Option, ...]


def completion(shell: Annotated[str, typer.Argument(help="bash, zsh or fish.")]) -> int:
    """Print a script that completes commands, options and files: eval "$(probrt completion bash)"."""
    if shell not in _WRITERS:
        raise UsageError(f"{shell}: choose from {', '.join(_WRITERS)}")
    print("\n".join(_WRITERS[shell](list_words())))
    return 0


def list_words() -> list[CommandWords]:
    """Returns all commands with their options; leaves out the options of a command that cannot run here."""
    words = []
    for name, command in list_commands().items():
        try:
            options = tuple(read_options(command.load(), name))
        except ProbrtError:
            options = ()
        words.append(CommandWords(name, command.summary, options))
    return words


def read_options(function: Any, name: str) -> Iterator[Option]:
    """Yields the options of a command's function."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name)(function)
    for parameter in typer.main.get_command(app).params:
        if parameter.param_type_name == "option":
            text = " ".join((getattr(parameter, "help", None) or "").split())
            names = (*parameter.opts, *parameter.secondary_opts)
            yield Option(names, text, not getattr(parameter, "is_flag", False))
    yield Option(("--debug",), "Print the traceback of a fault.", False)


def write_bash(commands: list[CommandWords]) -> Iterator[str]:
    """Yields the lines of the script for bash; what is no option is a file."""
    names = " ".join([command.name for command in commands] + ["--help", "--version"])
    yield "_probrt() {"
    yield '    local word="${COMP_WORDS[COMP_CWORD]}"'
    yield '    if [ "$COMP_CWORD" -eq 1 ]; then'
    yield f'        COMPREPLY=($(compgen -W {shlex.quote(names)} -- "$word"))'
    yield "        return"
    yield "    fi"
    yield '    case "${COMP_WORDS[1]} $word" in'
    for command in commands:
        options = " ".join(name for option in command.options for name in option.names)
        yield f"""        "{command.name} "-*) COMPREPLY=($(compgen -W {shlex.quote(options)} -- "$word")) ;;"""
    yield "        *) COMPREPLY=() ;;"
    yield "    esac"
    yield "}"
    yield "complete -o default -F _probrt probrt"


def write_zsh(commands: list[CommandWords]) -> Iterator[str]:
    """Yields the lines of the script for zsh."""
    yield "#compdef probrt"
    yield "_probrt() {"
    yield "    local -a commands"
    described = (shlex.quote(f"{command.name}:{command.summary}") for command in commands)
    yield f"    commands=({' '.join(described)})"
    yield "    if (( CURRENT == 2 )); then _describe command commands; return; fi"
    yield "    case $words[2] in"
    for command in commands:
        yield f"        {command.name}) _arguments \\"
        for option in command.options:
            text = option.help.translate(str.maketrans("[]:", "();"))
            value = ":value:_files" if option.takes_value else ""
            yield from (f"            {shlex.quote(f'{name}[{text}]{value}')} \\" for name in option.names)
        yield "            '*:file:_files' ;;"
    yield "    esac"
    yield "}"
    yield "compdef _probrt probrt"


def write_fish(commands: list[CommandWords]) -> Iterator[str]:
    """Yields the lines of the script for fish."""
    for command in commands:
        yield f"complete -c probrt -n __fish_use_subcommand -f -a {command.name} -d {_quote_fish(command.summary)}"
        for option in command.options:
            seen = _quote_fish(f"__fish_seen_subcommand_from {command.name}")
            value = " -r" if option.takes_value else ""
            for name in option.names:
                short = f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
                yield f"complete -c probrt -n {seen} {short}{value} -d {_quote_fish(option.help)}"


def _quote_fish(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


_WRITERS = {"bash": write_bash, "zsh": write_zsh, "fish": write_fish}
