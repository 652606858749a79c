"""The scripts of `probrt completion` in the shells themselves, as a person presses Tab; stress.

zsh and fish come from `apt-get` where they are not installed.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from probrt.runtime import cli

pytestmark = pytest.mark.stress

# What is typed before Tab, and how what is offered for it must begin. `images` is a folder of the test.
CASES = [
    ("probrt expo", {"export"}),
    ("probrt rep", {"report", "replay"}),
    ("probrt train --res", {"--resume"}),
    ("probrt predict --prec", {"--precision"}),
    ("probrt predict --no-", {"--no-recursive"}),
    ("probrt adopt --me", {"--method"}),
    ("probrt predict --out ima", {"images/"}),
    ("probrt predict ima", {"images/"}),
]


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A folder with the script of each shell and a folder of images."""
    for shell in ("bash", "zsh", "fish"):
        assert cli.call(["completion", shell]) == 0
        (tmp_path / f"probrt.{shell}").write_text(capsys.readouterr().out)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "one.png").touch()
    return tmp_path


def find_shell(name: str) -> str:
    """Returns the path of a shell; installs it if it is not there."""
    if not shutil.which(name):
        if not shutil.which("apt-get") or os.geteuid():
            pytest.skip(f"needs {name}")
        done = subprocess.run(["apt-get", "install", "-y", name], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{name} cannot be installed here: {done.stderr.splitlines()[-1:]}")
    return str(shutil.which(name))


class Terminal:
    """A shell in a terminal of 400 columns."""

    def __init__(self, command: list[str], folder: Path) -> None:
        master, slave = pty.openpty()
        environment = {"HOME": str(folder), "PATH": os.environ["PATH"], "TERM": "dumb", "COLUMNS": "400"}
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        self.master = master

    def send(self, text: str) -> str:
        """Types a text and returns what the shell prints until it is silent for a second."""
        os.write(self.master, text.encode())
        printed, end = b"", time.monotonic() + 60
        while time.monotonic() < end and select.select([self.master], [], [], 1.5)[0]:
            printed += os.read(self.master, 65536)
        return printed.decode(errors="replace")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)


def press_tab(shell: Terminal, line: str) -> set[str]:
    """Returns the words on the screen that begin as the line's last word, after Tab has been pressed twice."""
    word = line.rpartition(" ")[2]
    printed = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[\x07\x08]", " ", shell.send(f"{line}\t\t"))
    shell.send("\x15")  # erases the line
    return {found for found in re.findall(r"[\w./-]+", printed) if found.startswith(word) and found != word}


def begins(found: set[str], expected: set[str]) -> bool:
    """Whether each expected word begins one that was found."""
    return all(any(word.startswith(start) for word in found) for start in expected)


@pytest.mark.parametrize(
    ("name", "command", "start"),
    [
        ("bash", ["--norc", "--noprofile", "-i"], "source probrt.bash\n"),
        ("zsh", ["-f", "-i"], "autoload -U compinit; compinit -u; source probrt.zsh\n"),
    ],
)
def test_tab_completes_in_a_terminal(
    place: Path, name: str, command: list[str], start: str, measured: Callable[[str, str], None]
) -> None:
    shell = Terminal([find_shell(name), *command], place)
    try:
        shell.send("PS1='> '\n")
        printed = shell.send(start)
        assert "rror" not in printed, printed
        for line, expected in CASES:
            found = press_tab(shell, line)
            assert begins(found, expected), f"{name}: {line!r} offered {found}"
    finally:
        shell.close()
    measured(f"completion in {name}, typed in a terminal", f"{len(CASES)} lines completed")


def test_fish_completes(place: Path, measured: Callable[[str, str], None]) -> None:
    fish = find_shell("fish")
    for line, expected in CASES:
        code = f"source probrt.fish; complete -C '{line}'"
        environment = {"HOME": str(place), "PATH": os.environ["PATH"], "TERM": "dumb"}
        done = subprocess.run(
            [fish, "--no-config", "-c", code], cwd=place, env=environment, capture_output=True, text=True, check=True
        )
        assert not done.stderr
        found = {offer.partition("\t")[0] for offer in done.stdout.splitlines()}
        assert begins(found, expected), f"fish: {line!r} offered {found}"
    measured("completion in fish", f"{len(CASES)} lines completed")
