"""`probrt predict --ray` with a real Ray on this machine: workers die, and the rows stay those of one machine."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from extra_packages import RAY, environment, install
from PIL import Image
from shapes import SIDE
from stopping import PROGRAM

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.rows.readers import read_rows

# One worker: `--ray auto` finds any Ray of the machine.
pytestmark = [pytest.mark.stress, pytest.mark.xdist_group("ray")]
COUNT, SHARD, BROKEN = 20_000, 1024, (3, 7_000)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20,000 PNGs of random pixels, two of them broken."""
    folder = tmp_path_factory.mktemp("many")
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, SIDE, SIDE), dtype=np.uint8)
    for index in range(COUNT):
        Image.fromarray(pixels[index]).save(folder / f"{index:05d}.png", compress_level=1)
    for index in BROKEN:
        (folder / f"{index:05d}.png").write_bytes(b"no image")
    return folder


def start(bundle: Bundle, images: Path, *words: object, limited: bool = False) -> subprocess.Popen[str]:
    """Starts `predict`. limited: with 2 GB of address space."""
    command = ["predict", images, "--bundle", bundle.path, "--engine", "litert", "--maps", "none", *words]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(install(*RAY)),
        preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))) if limited else None,
    )


def list_workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The actors below a command; each names what it computes in its title."""
    workers = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if child.cmdline() and child.cmdline()[0].startswith("ray::RayWorker.predict"):
                workers.append(child)
        except psutil.Error:
            continue
    return workers


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)


def test_a_lost_worker_costs_its_shard_alone(
    bundle: Bundle, images: Path, tmp_path: Path, measured: Callable[[str, str], None]
) -> None:
    single = start(bundle, images, "--threads", 1, "--out", tmp_path / "one.parquet")
    _, error = single.communicate(timeout=300)
    assert single.returncode == 1, error
    out = tmp_path / "many"
    process = start(bundle, images, "--ray", "local", "--workers", 2, "--shard-size", SHARD, "--out", out)
    wait_for(lambda: len(list(out.glob("part-*.parquet"))) >= 6, process)
    wait_for(lambda: bool(workers := list_workers(process)) and (workers[0].kill() or True), process)
    left = psutil.Process(process.pid).children(recursive=True)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 1, error
    assert f"{COUNT} rows, 2 errors, {-(-COUNT // SHARD)} shards, 1 workers lost," in error
    assert error.count("is computed again") == 1
    many, one = (pq.read_table(path).replace_schema_metadata() for path in (out, tmp_path / "one.parquet"))
    assert many.equals(one)
    listed = json.loads((out / "_shards.json").read_text())
    assert (listed["rows"], listed["errors"], len(listed["shards"])) == (COUNT, 2, -(-COUNT // SHARD))
    assert sum(1 for _ in read_rows(out)) == COUNT
    assert not psutil.wait_procs(left, timeout=20)[1], "the local Ray is still there"
    speed = error.rpartition("shards,")[2].rpartition("lost, ")[2].partition(" ->")[0]
    measured(
        f"`predict --ray local` of {COUNT} images on two workers, one killed midway",
        f"rows equal to one machine's, one shard of {SHARD} computed twice, {speed}",
    )


def test_a_stopped_run_goes_on(bundle: Bundle, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "many"
    words = ("--ray", "local", "--workers", 2, "--shard-size", SHARD, "--out", out)
    process = start(bundle, images, *words)
    wait_for(lambda: len(list(out.glob("part-*.parquet"))) >= 3, process)
    process.terminate()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143, error
    assert "continue with --resume" in error
    assert not (out / "_shards.json").exists()
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*.parquet")}
    again = start(bundle, images, *words, "--resume")
    _, error = again.communicate(timeout=300)
    assert again.returncode == 1, error
    assert f"{len(before)} of an earlier run" in error
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    assert pq.read_table(out).num_rows == COUNT


def test_workers_that_always_die_end_the_run(bundle: Bundle, images: Path, tmp_path: Path) -> None:
    """As an image does that kills each worker, or a machine without memory."""
    out = tmp_path / "many"
    process = start(bundle, images, "--ray", "local", "--workers", 1, "--shard-size", SHARD, "--out", out)
    while process.poll() is None:
        for worker in list_workers(process):
            worker.kill()
        time.sleep(0.02)
    error = process.communicate()[1]
    assert process.returncode == 3, error
    assert "3 workers died over part-000000.parquet (images 0 to 1023)" in error
    assert "Traceback" not in error
    assert not (out / "_shards.json").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--ray", "127.0.0.1:9"], 3, "no Ray answers there"),
        (["--ray", "auto"], 3, "no Ray to connect to"),
        (["--ray", "somewhere"], 2, "HOST:PORT"),
        (["--ray", "local", "--threads", 4096], 2, "lower --threads"),
        (["--ray", "local", "--isolate"], 2, "choose one"),
        (["--ray", "local", "--limit"], 3, "of address space"),
    ],
)
def test_faults_are_one_line(
    bundle: Bundle, images: Path, tmp_path: Path, words: list[object], code: int, message: str
) -> None:
    limited = words[-1] == "--limit"
    process = start(bundle, images, *words[: -1 if limited else None], "--out", tmp_path / "many", limited=limited)
    _, error = process.communicate(timeout=120)
    assert process.returncode == code, error
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "many").exists()
