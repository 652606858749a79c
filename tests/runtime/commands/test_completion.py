"""Completion scripts: what bash completes, and that each script names every command and option."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from probrt.runtime import cli
from probrt.runtime.commands.completion import list_words


@pytest.fixture
def scripts(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """The script of each shell."""
    printed = {}
    for shell in ("bash", "zsh", "fish"):
        assert cli.call(["completion", shell]) == 0
        printed[shell] = capsys.readouterr().out
    return printed


def complete(script: str, *words: str) -> list[str]:
    """Returns what bash offers for the last word."""
    quoted = " ".join(f"'{word}'" for word in words)
    code = f'{script}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _probrt; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout.split()


def test_bash_completes_commands_and_options(scripts: dict[str, str]) -> None:
    assert complete(scripts["bash"], "probrt", "ex") == ["export"]
    assert "--version" in complete(scripts["bash"], "probrt", "--")
    assert complete(scripts["bash"], "probrt", "train", "--res") == ["--resume"]
    assert set(complete(scripts["bash"], "probrt", "predict", "--no-r")) == {"--no-recursive"}
    assert complete(scripts["bash"], "probrt", "predict", "imag") == []  # bash then offers files


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_and_option_is_in_the_script(scripts: dict[str, str], shell: str) -> None:
    for command in list_words():
        assert command.name in scripts[shell]
        for option in command.options:
            for name in option.names:
                assert (f"-l {name[2:]}" if shell == "fish" and name.startswith("--") else name) in scripts[shell]
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=scripts[shell], text=True, check=True)


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call(["completion", "tcsh"]) == 2
    assert capsys.readouterr().err == "probrt: tcsh: choose from bash, zsh, fish\n"
