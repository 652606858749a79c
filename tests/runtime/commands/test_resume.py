"""Stopped runs: what stays of them, what continues them, and what is refused."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from PIL import Image

from probrt.runtime import cli
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.rows.run_record import record_path
from probrt.runtime.rows.unfinished import unfinished_path

SUFFIXES = ["jsonl", "csv", "parquet"]
StopAfterWrites = Callable[[int], AbstractContextManager[None]]


def predict(bundle: Bundle, out: Path, *words: object) -> int:
    fixed = ["predict", "--bundle", bundle.path, "--out", out, "--engine", "litert", "--quiet", "--batch-size", 3]
    return cli.call([str(word) for word in (*fixed, *words)])


def read_tree(folder: Path) -> dict[str, bytes]:
    """Returns the files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def stopped(bundle: Bundle, mixed: Path, tmp_path: Path, stop_after_writes: StopAfterWrites) -> Path:
    """A run that was stopped after a third of its rows."""
    out = tmp_path / "runs" / "p.jsonl"
    with stop_after_writes(3):
        assert predict(bundle, out, mixed) == 130
    return out


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("writes", [1, 4, 8])
@pytest.mark.parametrize("torn", [b"", b'{"file": "torn', b"\0\0\0\n"])
def test_a_stopped_run_continues_to_the_same_bytes(
    bundle: Bundle, mixed: Path, tmp_path: Path, suffix: str, writes: int, torn: bytes,
    stop_after_writes: StopAfterWrites,
) -> None:  # fmt: skip
    whole, out = tmp_path / "whole" / f"p.{suffix}", tmp_path / "stopped" / f"p.{suffix}"
    words = (os.path.relpath(mixed), "--maps", "png")
    assert predict(bundle, whole, *words) == 1
    with stop_after_writes(writes):
        assert predict(bundle, out, *words) == 130
    assert not out.exists()
    assert not record_path(out).exists()
    with (unfinished_path(out) / "rows.jsonl").open("ab") as stream:
        stream.write(torn)
    assert predict(bundle, out, *words, "--resume") == 1
    expected = read_tree(whole.parent)
    assert expected.keys() == read_tree(out.parent).keys()
    assert not unfinished_path(out).exists()
    for name, content in read_tree(out.parent).items():
        if name.startswith("p.maps"):
            assert content == expected[name]
    if suffix != "parquet":
        assert out.read_bytes().replace(b"/stopped/", b"/whole/") == whole.read_bytes()
    shutil.rmtree(out.parent)
    out = whole  # the same names: the same bytes, of Parquet too
    before = whole.read_bytes()
    with stop_after_writes(writes):
        assert predict(bundle, out, *words, "--overwrite") == 130
    assert out.read_bytes() == before
    assert predict(bundle, out, *words, "--resume") == 1
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "difference"),
    [
        (("--seed", 2, "--variant", "sampled"), "seed was 7, now 2"),
        (("--tolerance", "0.01"), "tolerance was none, now shape=0.01,slant=0.01,ink=0.01"),
        (("--samples", 4), "draws was 8, now 4"),
        (("--variant", "mean"), "variant was draws, now mean"),
        (("--maps", "npy"), "maps was auto, now npy"),
        (("--maps", "none"), "maps was auto, now none"),
        (("--overlay",), "overlay was off, now on"),
        (("--engine", "onnxruntime"), "engine was litert, now onnxruntime"),
        (("--coverage", "0.9"), "coverage was none, now 0.9"),
        (("--batch-size", 4), "batch size was 3, now 4"),
    ],
)
@pytest.mark.parametrize("finished", [False, True])
def test_another_run_is_not_continued_and_every_difference_is_named(
    bundle: Bundle, mixed: Path, stopped: Path, words: tuple[object, ...], difference: str, finished: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if finished:
        assert predict(bundle, stopped, mixed, "--resume") == 1
    before = read_tree(stopped.parent)
    capsys.readouterr()
    assert predict(bundle, stopped, mixed, "--resume", *words) == 2
    error = capsys.readouterr().err
    assert difference in error
    assert error.count("\n") == 1
    after = read_tree(stopped.parent)
    after.pop("p.jsonl.unfinished/lock", None)
    before.pop("p.jsonl.unfinished/lock", None)
    assert after == before


def test_another_bundle_of_the_same_label_is_named(
    bundle: Bundle, mixed: Path, stopped: Path, tmp_path: Path, rewrite: Callable[..., Bundle],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = tmp_path / "other" / "shapes" / "1"
    shutil.copytree(bundle.path, folder)
    other = rewrite(folder, calibration=[])
    assert other.label == bundle.label
    assert predict(other, stopped, mixed, "--resume") == 2
    assert "manifest was " in capsys.readouterr().err


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("finished", [False, True])
def test_an_image_that_changed_is_named(
    bundle: Bundle, mixed: Path, tmp_path: Path, suffix: str, finished: bool, stop_after_writes: StopAfterWrites,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / f"p.{suffix}"
    with stop_after_writes(100 if finished else 4):
        assert predict(bundle, out, mixed) == (1 if finished else 130)
    times = (mixed / "02.png").stat()
    Image.new("L", (12, 12), 9).save(mixed / "02.png")
    os.utime(mixed / "02.png", ns=(times.st_atime_ns, times.st_mtime_ns))
    capsys.readouterr()
    assert predict(bundle, out, mixed, "--resume") == 2
    assert "02.png has changed since row 3 was written" in capsys.readouterr().err
    (mixed / "02.png").unlink()
    assert predict(bundle, out, mixed, "--resume") == 2
    assert "but the input has" in capsys.readouterr().err
    (mixed / "02.png").mkdir()
    (mixed / "03b.png").unlink()  # an error row
    assert predict(bundle, out, mixed, "--resume") == 2


def test_other_images_are_named(
    bundle: Bundle, mixed: Path, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "short.txt").write_text(f"{mixed}/00.png\n{mixed}/01.png\n")
    for words, message in (
        ((mixed / "more",), "row 1 is "),
        ((tmp_path / "short.txt",), "but the input ends there; name the same images"),
    ):
        assert predict(bundle, stopped, *words, "--resume") == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_finished_file_continues_with_images_that_have_come_behind(
    bundle: Bundle, mixed: Path, tmp_path: Path, suffix: str
) -> None:
    names = sorted(os.fsencode(path) for path in mixed.iterdir() if path.suffix == ".png")
    names = [name for name in names if b"\n" not in name]
    out, whole = tmp_path / f"p.{suffix}", tmp_path / f"whole.{suffix}"
    (tmp_path / "list.txt").write_bytes(b"\n".join(names))
    assert predict(bundle, whole, tmp_path / "list.txt", "--maps", "none") == 1
    (tmp_path / "list.txt").write_bytes(b"\n".join(names[:11]))
    assert predict(bundle, out, tmp_path / "list.txt", "--maps", "none") == 1
    before = out.stat()
    assert predict(bundle, out, tmp_path / "list.txt", "--maps", "none", "--resume") == 1
    assert (out.stat().st_ino, out.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    (tmp_path / "list.txt").write_bytes(b"\n".join(names))
    assert predict(bundle, out, tmp_path / "list.txt", "--maps", "none", "--resume") == 1
    assert out.read_bytes() == whole.read_bytes()


def test_a_file_without_a_record_is_not_continued(
    bundle: Bundle, mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p.jsonl"
    assert predict(bundle, out, mixed) == 1
    record = record_path(out).read_bytes()
    for content in (None, b"", b"[]", b'{"format": 1}'):
        record_path(out).unlink()
        if content is not None:
            record_path(out).write_bytes(content)
        assert predict(bundle, out, mixed, "--resume") == 2
        error = capsys.readouterr().err
        assert "p.jsonl.run.json" in error
        assert "start anew with --overwrite" in error
        record_path(out).write_bytes(record)
    with out.open("ab") as stream:
        stream.write(b"\n")
    assert predict(bundle, out, mixed, "--resume") == 2
    assert "has changed since its run finished" in capsys.readouterr().err


def test_a_refused_run_leaves_nothing_and_an_old_file_whole(
    bundle: Bundle, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "altered" / "1"
    shutil.copytree(bundle.path, folder)
    altered = Bundle(folder, bundle.manifest)
    (tmp_path / "runs").mkdir()
    out = tmp_path / "runs" / "p.jsonl"
    for name in ("draws-00.tflite", "draws-01.tflite"):  # the second file of the bank too
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert predict(altered, out, pictures) == 2
        error = capsys.readouterr().err
        assert "was altered after export" in error
        assert "--resume" not in error
        assert list((tmp_path / "runs").iterdir()) == []
        (folder / name).write_bytes(content)
    assert predict(altered, out, pictures) == 0
    before = read_tree(tmp_path / "runs")
    (folder / "draws-00.tflite").write_bytes(b"x" * (folder / "draws-00.tflite").stat().st_size)
    for flag in ("--overwrite", "--resume"):
        assert predict(altered, out, pictures, flag) == 2
        assert read_tree(tmp_path / "runs") == before


def test_a_stopped_run_is_neither_overwritten_nor_forgotten(
    bundle: Bundle, mixed: Path, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read_tree(stopped.parent)
    assert predict(bundle, stopped, mixed) == 2
    assert "holds a run that has not finished: go on with --resume" in capsys.readouterr().err
    assert read_tree(stopped.parent) == before
    assert predict(bundle, stopped, mixed, "--overwrite") == 1
    assert not unfinished_path(stopped).exists()


def test_what_a_run_without_rows_left_does_not_matter(
    bundle: Bundle, mixed: Path, tmp_path: Path, stop_after_writes: StopAfterWrites
) -> None:
    out = tmp_path / "runs" / "p.parquet"
    with stop_after_writes(0):
        assert predict(bundle, out, mixed) == 130
    assert list(out.parent.iterdir()) == []
    unfinished_path(out).mkdir()
    (unfinished_path(out) / "lock").touch()
    (unfinished_path(out) / "run.json.part").write_text("{")
    (unfinished_path(out) / "rows.jsonl").touch()
    (out.parent / "p.parquet.part").write_bytes(b"PAR1")
    assert predict(bundle, out, mixed) == 1
    assert sorted(path.name for path in out.parent.iterdir()) == ["p.maps", "p.parquet", "p.parquet.run.json"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_second_run_on_an_output_is_refused_and_a_dead_one_blocks_nothing(
    bundle: Bundle, pictures: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"p.{suffix}"
    words = ["predict", "-", "--bundle", bundle.path, "--out", out, "--engine", "litert", "--batch-size", 3]
    first = subprocess.Popen(
        [sys.executable, "-c", "from probrt.runtime.cli import main; main()", *map(str, words)],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert first.stdin is not None
        assert first.stderr is not None
        first.stdin.write(f"{pictures}/00.png\n" * 300)
        first.stdin.flush()
        assert "litert on cpu" in first.stderr.readline()
        rows = unfinished_path(out) / "rows.jsonl"
        while not rows.stat().st_size:
            assert first.poll() is None
        (tmp_path / "list.txt").write_text(f"{pictures}/00.png\n" * 40)
        for flag in ((), ("--overwrite",), ("--resume",)):
            assert predict(bundle, out, tmp_path / "list.txt", *flag) == 2
            error = capsys.readouterr().err
            assert "another run is writing it" in error or "holds a run that has not finished" in error
        first.kill()
    finally:
        first.kill()
        first.communicate()
    done = len(rows.read_bytes().splitlines())
    (tmp_path / "list.txt").write_text(f"{pictures}/00.png\n" * 300)
    assert predict(bundle, out, tmp_path / "list.txt", "--resume") == 0
    assert done > 0
    if suffix == "jsonl":
        assert [json.loads(line)["status"] for line in out.read_text().splitlines()] == ["ok"] * 300
