"""Reads the options of a command where they are plain, in a hundredth of a second.

Typer needs pydantic to read any command line, which costs a fifth of the time from the start of `probrt predict` to the
row of one image. This module reads what cannot be meant in two ways: long options with a value of their type, and
names. It leaves everything else to Typer: help, abbreviations, faults and their messages.
"""

import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import typer.models

_READERS: Mapping[type, tuple[str, Callable[[str], Any]]] = {
    str: (r"(?s:.*)", str),
    int: (r"-?[0-9]{1,18}", int),
    float: (r"-?[0-9]{1,18}(\.[0-9]{1,18})?", float),
}


@dataclass(frozen=True)
class _Parameter:
    """One parameter of a command: its type without None, and what Typer was told of it."""

    name: str
    kind: Any
    info: typer.models.ParameterInfo
    required: bool

    @property
    def options(self) -> dict[str, bool]:
        """The words that name it; a switch is set to their values."""
        first = self.info.default  # in an annotation, what comes first is a name
        declared = (*((first,) if isinstance(first, str) else ()), *(self.info.param_decls or ()))
        if declared:
            return dict.fromkeys(declared, True)
        name = self.name.replace("_", "-")
        return {f"--{name}": True, f"--no-{name}": False} if self.kind is bool else {f"--{name}": True}


def read_plain_words(function: Callable[..., Any], words: Sequence[str]) -> dict[str, Any] | None:
    """Returns the values of a command's parameters that the words give, or None where Typer has to read them."""
    parameters = _list_parameters(function)
    if parameters is None:
        return None
    arguments = [parameter for parameter in parameters if isinstance(parameter.info, typer.models.ArgumentInfo)]
    options = {word: parameter for parameter in parameters if parameter not in arguments for word in parameter.options}
    values: dict[str, Any] = {}
    names: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            names.append(word)
            continue
        option, equals, text = word.partition("=")
        parameter = options.get(option)
        if parameter is None or parameter.name in values:
            return None
        if parameter.kind is bool:
            if equals:
                return None
            values[parameter.name] = parameter.options[option]
            continue
        if not equals and (not rest or rest[0].startswith("-")):
            return None
        value = _read_value(parameter, text if equals else rest.pop(0))
        if value is None:
            return None
        values[parameter.name] = value
    return _add_names(values, names, arguments, parameters)


def _add_names(
    values: dict[str, Any], names: list[str], arguments: Sequence[_Parameter], parameters: Sequence[_Parameter]
) -> dict[str, Any] | None:
    """Adds the names to the values; None unless they are one list, or exactly as many as arguments."""
    if len(arguments) == 1 and arguments[0].kind == list[str] and names:
        values[arguments[0].name] = names
    elif len(arguments) == len(names) and all(argument.kind is str for argument in arguments):
        values |= {argument.name: name for argument, name in zip(arguments, names, strict=True)}
    else:
        return None
    complete = all(parameter.name in values or not parameter.required for parameter in parameters)
    return values if complete else None


def _read_value(parameter: _Parameter, text: str) -> Any:
    """Returns an option's value, or None if it is not plainly one of its type and within its bounds."""
    pattern, read = _READERS[parameter.kind]
    if not re.fullmatch(pattern, text):
        return None
    value, info = read(text), parameter.info
    if (info.min is not None and value < info.min) or (info.max is not None and value > info.max):
        return None
    return value


def _list_parameters(function: Callable[..., Any]) -> list[_Parameter] | None:
    """Returns the parameters of a command; None if one is of a kind that this module does not read."""
    parameters = []
    hints = typing.get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        kind, *extras = typing.get_args(hints.get(name)) or (None,)
        info = extras[0] if len(extras) == 1 else None
        if isinstance(kind, types.UnionType):
            kind = next((member for member in typing.get_args(kind) if member is not type(None)), None)
        required = parameter.default is inspect.Parameter.empty
        plain = _Parameter(name, kind, info, required) if isinstance(info, typer.models.ParameterInfo) else None
        if plain is None or not _is_plain(plain):
            return None
        parameters.append(plain)
    return parameters


def _is_plain(parameter: _Parameter) -> bool:
    """Whether Typer was told nothing of a parameter but names, help and bounds."""
    info = parameter.info
    usual = type(info)(
        default=info.default,
        param_decls=info.param_decls,
        metavar=info.metavar,
        help=info.help,
        min=info.min,
        max=info.max,
        show_default=info.show_default,
        hidden=info.hidden,
    )
    if vars(info) != vars(usual):
        return False
    if isinstance(info, typer.models.ArgumentInfo):
        return info.default is ... and parameter.kind in (str, list[str])
    return parameter.kind in (str, int, float, bool) and all(
        re.fullmatch(r"--[a-z0-9-]+", word) for word in parameter.options
    )
