"""A disk that takes no more: exit 3 with the path, no half file under a final name, and `--resume` goes on."""

import contextlib
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stopping import read_tree

from probrt.runtime import cli
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.files import open_atomic, write_atomic, write_whole

SUFFIXES = ["jsonl", "csv", "parquet"]


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Lets this process write no file beyond a size; the write before gets a part of its bytes through."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a file system of some kilobytes in memory; skips where mounting is not allowed."""
    mounted: list[Path] = []

    def mount(kilobytes: int) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
        try:
            result = subprocess.run(words, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("no mount here")
        if result.returncode:
            pytest.skip(f"mounting is not allowed here: {result.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


def predict(bundle: Bundle, out: Path, *words: object) -> int:
    fixed = ["predict", "--bundle", bundle.path, "--out", out, "--engine", "litert", "--batch-size", 3]
    return cli.call([str(word) for word in (*fixed, *words)])


def try_limit(
    bundle: Bundle, pictures: Path, out: Path, limit: int, expected: dict[str, bytes], read_error: Callable[[], str]
) -> bool:
    """Predicts with a limit, checks what is left, continues without it, and returns whether the limit was met."""
    with largest_file(limit):
        code = predict(bundle, out, pictures)
    error = read_error()
    assert code in (0, 3), error
    if code == 3:
        assert str(out) in error, error
        assert "File too large" in error, error
        assert not out.exists()
        assert not out.with_suffix(".maps").exists()
        assert ("continue with --resume" in error) == out.with_name(f"{out.name}.unfinished").exists()
    assert predict(bundle, out, pictures, "--resume", "--quiet") == 0
    assert read_tree(out.parent) == expected
    for path in sorted(out.parent.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    return code == 3


@pytest.fixture
def expected(
    bundle: Bundle, pictures: Path, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> tuple[Path, dict[str, bytes]]:
    """The name of an output of some format, and the files of a run that nothing stops; the folder is empty again."""
    out = tmp_path / "runs" / f"p.{request.param}"
    assert predict(bundle, out, pictures, "--quiet") == 0
    tree = read_tree(out.parent)
    for path in sorted(out.parent.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    capsys.readouterr()
    return out, tree


@pytest.mark.parametrize("expected", SUFFIXES, indirect=True)
def test_files_of_a_limited_size(
    bundle: Bundle, pictures: Path, expected: tuple[Path, dict[str, bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    limits = (0, 40, 150, 2000, 5000)
    met = [
        try_limit(bundle, pictures, expected[0], limit, expected[1], lambda: capsys.readouterr().err)
        for limit in limits
    ]
    assert all(met)


@pytest.mark.stress
@pytest.mark.parametrize("expected", SUFFIXES, indirect=True)
def test_every_write_of_a_run_may_fail(
    bundle: Bundle, pictures: Path, expected: tuple[Path, dict[str, bytes]], capsys: pytest.CaptureFixture[str],
    measured: Callable[[str, str], None],
) -> None:  # fmt: skip
    limits = [*range(0, 200, 2), *range(200, 14_000, 138)]
    met = [
        try_limit(bundle, pictures, expected[0], limit, expected[1], lambda: capsys.readouterr().err)
        for limit in limits
    ]
    assert sum(met) > 150
    measured(
        f"predict with {len(limits)} limits on the size of files, {expected[0].suffix[1:]}",
        f"{sum(met)} runs met theirs: exit 3, no half file; --resume gave the same bytes",
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk(
    bundle: Bundle, pictures: Path, tmp_path: Path, suffix: str, small_disk: Callable[[int], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    whole = tmp_path / "whole" / f"p.{suffix}"
    (tmp_path / "list.txt").write_text(f"{pictures}/00.png\n" * 300)
    words = (tmp_path / "list.txt", "--maps", "none")
    assert predict(bundle, whole, *words, "--quiet") == 0
    disk = small_disk(100)
    out = disk / f"p.{suffix}"
    capsys.readouterr()
    assert predict(bundle, out, *words) == 3
    error = capsys.readouterr().err
    assert str(out) in error
    assert "No space left on device" in error
    assert "continue with --resume" in error
    assert not out.exists()
    subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
    assert predict(bundle, out, *words, "--resume", "--quiet") == 0
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in disk.iterdir()) == [f"p.{suffix}", f"p.{suffix}.run.json"]


def test_a_report_on_a_full_disk_leaves_no_half_page(
    bundle: Bundle, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "p.jsonl"
    assert predict(bundle, rows, pictures, "--quiet") == 0
    for old in (None, b"an older page"):
        page = tmp_path / "p.html"
        if old is not None:
            page.write_bytes(old)
        with largest_file(9000):
            assert cli.call(["report", str(rows), "--overwrite"]) == 3
        error = capsys.readouterr().err
        assert str(page) in error
        assert "File too large" in error
        assert (page.read_bytes() if page.exists() else None) == old
        assert not (tmp_path / "p.html.part").exists()
    assert cli.call(["report", str(rows), "--overwrite"]) == 0


@pytest.mark.parametrize("write", [write_atomic, write_whole])
def test_a_write_that_the_system_takes_in_part_is_an_error_that_names_the_file(
    tmp_path: Path, write: Callable[[Path, bytes], None]
) -> None:
    path = tmp_path / "a.bin"
    with largest_file(1000), pytest.raises(OSError, match="File too large") as caught:
        write(path, bytes(5000))
    assert caught.value.filename == str(path)
    if write is write_atomic:
        assert list(tmp_path.iterdir()) == []


def test_pieces_that_the_system_takes_one_by_one_are_whole(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    write_whole(tmp_path / "a.bin", content)
    with open_atomic(tmp_path / "b.bin") as stream:
        for start in range(0, len(content), 7919):
            stream.write(content[start : start + 7919])
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes() == content
