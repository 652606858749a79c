"""Runs that end at any moment, by SIGKILL, SIGINT or SIGTERM."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from stopping import kill_when, read_tree, run, start

from probrt.runtime import cli
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.rows.unfinished import unfinished_path

SUFFIXES = ["jsonl", "csv", "parquet"]


def make_words(bundle: Bundle, images: Path, out: Path) -> list[object]:
    return ["predict", images, "--bundle", bundle.path, "--engine", "litert", "--quiet", "--maps", "none", "--out", out]


def write_list(folder: Path, pictures: Path, count: int) -> Path:
    """Writes a list of images, every hundredth of which does not exist."""
    names = [f"{pictures}/{i % 15:02d}.png" if i % 100 else f"{pictures}/gone.png" for i in range(count)]
    (folder / "list.txt").write_text("\n".join(names))
    return folder / "list.txt"


def has_bytes(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size >= size
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_killed_run_continues_to_the_same_bytes(bundle: Bundle, pictures: Path, tmp_path: Path, suffix: str) -> None:
    images = write_list(tmp_path, pictures, 600)
    out, whole = tmp_path / "runs" / f"p.{suffix}", tmp_path / f"whole.{suffix}"
    assert cli.call([*map(str, make_words(bundle, images, whole)), "--batch-size", "8"]) == 1
    words = [*make_words(bundle, images, out), "--batch-size", 8]
    rows = unfinished_path(out) / "rows.jsonl"
    assert kill_when(words, lambda: has_bytes(rows, 50_000))
    assert not out.exists()
    assert cli.call([*map(str, words), "--resume"]) == 1
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in out.parent.iterdir()) == [out.name, f"{out.name}.run.json"]


@pytest.mark.stress
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_fifty_kills_of_a_run_of_10_000_images(
    bundle: Bundle, pictures: Path, tmp_path: Path, suffix: str, measured: Callable[[str, str], None]
) -> None:
    """One run, killed at 50 moments: while it starts, at rows spread over all, and while it finishes."""
    count = int(os.environ.get("PROBRT_KILL_IMAGES", "10000"))
    kills = 50
    images = write_list(tmp_path, pictures, count)
    out, whole = tmp_path / "runs" / f"p.{suffix}", tmp_path / "whole" / f"p.{suffix}"
    assert run(make_words(bundle, images, whole))[0] == 1
    journal_size = whole.stat().st_size
    if suffix != "jsonl":
        assert run(make_words(bundle, images, tmp_path / "j.jsonl"))[0] == 1
        journal_size = (tmp_path / "j.jsonl").stat().st_size
    rows, part = unfinished_path(out) / "rows.jsonl", out.with_name(f"{out.name}.part")
    chance = random.Random(suffix)
    killed = 0
    words = make_words(bundle, images, out)
    for kill in range(kills):
        if kill % 10 == 9:  # while it starts, or checks the rows that are there
            end = time.monotonic() + chance.uniform(0, 1.5)
            moment = lambda end=end: time.monotonic() > end  # noqa: E731
        elif kill > 44:  # while it finishes
            moment = lambda: part.exists() or has_bytes(rows, journal_size)  # noqa: E731
        else:
            target = journal_size * (kill + chance.random()) // 45
            moment = lambda target=target: has_bytes(rows, target)  # noqa: E731
        was_killed = kill_when([*words, "--resume"], moment)
        killed += was_killed
        assert not out.exists() or out.read_bytes() == whole.read_bytes()
        if not was_killed:  # it had finished, so the next one would have nothing left to do
            shutil.rmtree(out.parent)
    assert run([*words, "--resume"])[0] == 1
    assert read_tree(out.parent).keys() == read_tree(whole.parent).keys()
    assert out.read_bytes() == whole.read_bytes()
    assert killed > kills * 0.8
    measured(f"{killed} kill -9 of a run of {count} images, {suffix}", "--resume gave the bytes of an unstopped run")


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_an_overwriting_run_with_the_old_file_whole(
    bundle: Bundle, pictures: Path, tmp_path: Path, signum: signal.Signals, code: int
) -> None:
    out = tmp_path / "p.parquet"
    few, many = write_list(tmp_path, pictures, 20), tmp_path / "many.txt"
    assert cli.call([*map(str, make_words(bundle, few, out))]) == 1
    before = out.read_bytes()
    many.write_text(f"{pictures}/00.png\n" * 3000)
    words = [word for word in make_words(bundle, many, out) if word != "--quiet"]
    process = start([*words, "--overwrite", "--batch-size", 2])
    rows = unfinished_path(out) / "rows.jsonl"
    while not has_bytes(rows, 5000):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signum)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code, error
    assert "continue with --resume" in error
    assert "Traceback" not in error
    assert out.read_bytes() == before
    assert cli.call([*map(str, words), "--resume", "--quiet", "--batch-size", "2"]) == 0
    assert out.read_bytes() != before


def wait_for_computing(process: subprocess.Popen[str], seconds: float) -> None:
    """Waits until a process has computed so long: a busy machine starts it later, not in another order."""
    while process.poll() is None and sum(psutil.Process(process.pid).cpu_times()[:2]) < seconds:
        time.sleep(0.002)


@pytest.mark.stress
def test_interrupts_while_a_run_starts(
    bundle: Bundle, pictures: Path, tmp_path: Path, measured: Callable[[str, str], None]
) -> None:
    # So many that no signal falls into the end of the interpreter, which takes the handlers away.
    images, out = write_list(tmp_path, pictures, 30_000), tmp_path / "runs" / "p.jsonl"
    out.parent.mkdir()
    slowest, stopped = 0.0, 0
    for moment in range(60):
        process = start([*make_words(bundle, images, out), "--overwrite"])
        wait_for_computing(process, 0.08 + moment * 0.02)
        sent = time.monotonic()
        process.send_signal(signal.SIGINT if moment % 3 else signal.SIGTERM)
        _, error = process.communicate(timeout=60)
        slowest = max(slowest, time.monotonic() - sent)
        if process.returncode in (130, 143):
            stopped += 1
            assert error in ("probrt: interrupted\n", "probrt: terminated\n"), (moment, error)
        else:  # before the interpreter runs probrt
            assert moment < 20, (moment, process.returncode, error)
            assert "probrt/runtime/commands" not in error, (moment, error)
    assert slowest < 10
    assert stopped > 30
    measured("60 signals while predict starts", f"{stopped} ended with one line, the slowest after {slowest:.1f} s")
