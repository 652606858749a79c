"""A version is published whole, under the next free number; what dead processes leave behind is removed."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from probrt.runtime.bundle.publish import next_version, stage_version
from probrt.runtime.errors import StorageError, UsageError

WAITING_EXPORT = """
import sys, time
from pathlib import Path
from probrt.runtime.bundle.publish import stage_version
with stage_version(Path(sys.argv[1])) as stage:
    (stage.folder / "graph").write_bytes(bytes(1000))
    print("staged", flush=True)
    sys.stdin.read()
    stage.publish()
"""


def start_export(home: Path) -> subprocess.Popen[str]:
    """Starts a process that has staged a version and waits for the end of its input before it publishes."""
    command = [sys.executable, "-c", WAITING_EXPORT, str(home)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "staged\n"
    return process


def test_versions_count_up(tmp_path: Path) -> None:
    assert next_version(tmp_path / "none") == 1
    for name in ("1", "3", "007", "notes", ".unfinished-9-1"):
        (tmp_path / name).mkdir()
    assert next_version(tmp_path) == 8
    with pytest.raises(UsageError, match="exists"), stage_version(tmp_path, 3):
        pass


def test_the_number_is_taken_at_the_end(tmp_path: Path) -> None:
    """Two exports at once get two versions, also where both want the same number at the same moment."""
    written = []
    with stage_version(tmp_path) as first, stage_version(tmp_path) as second:
        (first.folder / "graph").write_text("first")
        (second.folder / "graph").write_text("second")

        def complete_first(version: int) -> None:
            written.append(version)
            (first.folder / "number").write_text(str(version))
            if len(written) == 1:
                second.publish()

        assert first.publish(complete_first) == tmp_path / "2"
    assert written == [1, 2]
    assert {path.name for path in tmp_path.iterdir()} == {"1", "2"}
    assert [(tmp_path / name / "graph").read_text() for name in "12"] == ["second", "first"]
    assert (tmp_path / "2" / "number").read_text() == "2"


def test_a_number_that_was_asked_for_is_never_overwritten(tmp_path: Path) -> None:
    with stage_version(tmp_path, 4) as first, stage_version(tmp_path, 4) as second:
        (first.folder / "graph").write_text("first")
        first.publish()
        with pytest.raises(UsageError, match="4: exists; a version is never overwritten"):
            second.publish()
    assert {path.name for path in tmp_path.iterdir()} == {"4"}


def test_a_block_that_fails_leaves_nothing(tmp_path: Path) -> None:
    before = tempfile.gettempdir()

    def fail() -> None:
        with stage_version(tmp_path) as stage:
            with tempfile.NamedTemporaryFile(delete=False) as file:
                assert Path(file.name).is_relative_to(tmp_path)
            (stage.folder / "graph").write_text("half")
            raise OSError(28, "no room")

    with pytest.raises(StorageError, match="no room; nothing was published"):
        fail()
    assert not list(tmp_path.iterdir())
    assert tempfile.gettempdir() == before


def test_leftovers_of_dead_processes_are_removed_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    dead, alive = start_export(tmp_path), start_export(tmp_path)
    dead.send_signal(signal.SIGKILL)
    dead.communicate()
    (tmp_path / ".unfinished-1-4711").mkdir()  # as earlier versions named them, without a lock
    assert len(list(tmp_path.glob(".unfinished-*/version/graph"))) == 2
    with stage_version(tmp_path) as stage:
        stage.publish()
    (folder,) = tmp_path.glob(".unfinished-*/version/graph")
    assert len(list(tmp_path.glob(".unfinished-*"))) == 2  # the living one's folder and lock
    alive.communicate("")
    assert alive.returncode == 0
    assert not folder.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"1", "2"}
    assert (tmp_path / "2" / "graph").stat().st_size == 1000
