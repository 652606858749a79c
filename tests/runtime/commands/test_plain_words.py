"""What is read without Typer is what Typer reads; what is not plain is left to it."""

import functools
import inspect
import random
from collections.abc import Callable
from typing import Annotated, Any

import pytest
import typer

from probrt.runtime.commands.plain_words import read_plain_words
from probrt.runtime.commands.predict import predict
from probrt.runtime.commands.table import COMMANDS

TEXTS = (
    "a.png",
    "32",
    "0",
    "-1",
    "1.5",
    "1e3",
    "nan",
    "",
    "-",
    "--",
    "a b",
    "ü=1",
    "1_000",
    " 7",
    "--quiet",
    "-q",
    "9" * 30,
)
# Commands with a parameter that only Typer reads.
NOT_PLAIN = ("calibrate", "verify")
RUNTIME = [command for command in COMMANDS if command.target.startswith("probrt.runtime")]


def read_by_typer(function: Callable[..., Any]) -> Callable[[list[str]], dict[str, Any] | None]:
    """Returns a reader that gives what Typer calls a function with, or None where it refuses the words."""
    seen: list[dict[str, Any]] = []

    @functools.wraps(function)
    def record(**values: Any) -> None:
        seen.append(values)

    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command("command")(record)
    command = typer.main.get_command(app)

    def read(words: list[str]) -> dict[str, Any] | None:
        seen.clear()
        try:
            command.main(args=words, prog_name="probrt command", standalone_mode=False)
        except Exception as error:
            if "typer" not in type(error).__module__:  # no refusal, but a fault of this test
                raise
        return seen[0] if seen else None

    return read


def add_defaults(function: Callable[..., Any], values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: values.get(name, parameter.default) for name, parameter in inspect.signature(function).parameters.items()
    }


@pytest.mark.parametrize("command", [command.name for command in RUNTIME])
def test_typer_reads_the_same(command: str) -> None:
    function = next(row for row in RUNTIME if row.name == command).load()
    read, rng = read_by_typer(function), random.Random(command)
    options = [f"--{name.replace('_', '-')}" for name in inspect.signature(function).parameters]
    options += [
        "--no-recursive",
        "--continue",
        "--help",
        "--unknown=off",
        "--samples=8",
        "--batch-size=0",
        "--no-temperature",
    ]
    plain = 0
    for _ in range(150):
        words = ["a.png"] * rng.randint(0, 1) + [
            rng.choice(options) if rng.random() < 0.5 else rng.choice(TEXTS) for _ in range(rng.randint(0, 5))
        ]
        values = read_plain_words(function, words)
        if values is not None:
            plain += 1
            assert add_defaults(function, values) == read(words), words
    assert plain or command in NOT_PLAIN


def test_what_predict_is_called_with_is_plain() -> None:
    words = ["images", "--bundle", "b", "--samples=8", "--max-risk", "0.02", "--no-recursive", "--overwrite", "more"]
    assert read_plain_words(predict, words) == {
        "images": ["images", "more"],
        "bundle": "b",
        "samples": 8,
        "max_risk": 0.02,
        "recursive": False,
        "overwrite": True,
    }


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["images", "--sample", "8"],
        ["images", "--samples"],
        ["images", "--samples", "many"],
        ["images", "--samples", "8", "--samples", "9"],
        ["images", "--batch-size", "0"],
        ["images", "--overwrite=yes"],
        ["--", "-images"],
    ],
)
def test_what_may_be_a_fault_is_left_to_typer(words: list[str]) -> None:
    assert read_plain_words(predict, words) is None


def test_a_parameter_with_a_setting_of_its_own_is_left_to_typer() -> None:
    def command(name: Annotated[str, typer.Option(envvar="NAME")] = "") -> None: ...

    assert read_plain_words(command, ["--name", "a"]) is None
