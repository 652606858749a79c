"""Atomic files: whole, or as they were before."""

from pathlib import Path

import pytest

from probrt.runtime.files import open_atomic, write_atomic


def test_a_file_is_replaced_by_its_whole_content(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for data in (b"first", b"second, longer"):
        write_atomic(path, data)
        assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]


def interrupt(path: Path, error: type[BaseException]) -> None:
    with open_atomic(path) as stream:
        stream.write(b"new")
        raise error


def test_a_fault_or_an_interrupt_leaves_the_old_content_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    for error in (OSError, KeyboardInterrupt):
        with pytest.raises(error):
            interrupt(path, error)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "none" / "a.json", b"")
