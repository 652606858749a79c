"""A long run takes no more memory and no more descriptors than a short one."""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from stopping import start

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.rows.unfinished import unfinished_path

MEGABYTE = 1 << 20


@pytest.mark.stress
def test_memory_and_descriptors_stay_flat(
    bundle: Bundle, pictures: Path, tmp_path: Path, measured: Callable[[str, str], None]
) -> None:
    count = int(os.environ.get("PROBRT_MANY_IMAGES", "200000"))
    with (tmp_path / "list.txt").open("w") as stream:
        stream.writelines(f"{pictures}/{index % 15:02d}.png\n" for index in range(count))
    out = tmp_path / "p.jsonl"
    words = ["predict", tmp_path / "list.txt", "--bundle", bundle.path, "--engine", "litert", "--quiet"]
    process = start([*words, "--variant", "mean", "--maps", "none", "--out", out])
    watched = psutil.Process(process.pid)
    rows = unfinished_path(out) / "rows.jsonl"
    samples: list[tuple[int, int, int]] = []
    began = time.monotonic()
    while process.poll() is None:
        with contextlib.suppress(psutil.Error, FileNotFoundError):  # it starts, or ends
            samples.append((rows.stat().st_size, watched.memory_info().rss, watched.num_fds()))
        time.sleep(0.1)
    _, error = process.communicate()
    assert process.returncode == 0, error
    seconds = time.monotonic() - began
    size = max(written for written, _, _ in samples)
    later = [sample for sample in samples if sample[0] > size / 10]
    memory, files = [sample[1] for sample in later], [sample[2] for sample in later]
    growth = (max(memory) - memory[0]) / MEGABYTE
    measured(
        f"predict of {count} images",
        f"{growth:.0f} MB more than after a tenth ({memory[0] / MEGABYTE:.0f} MB), "
        f"{min(files)} to {max(files)} descriptors, {count / seconds:.0f} images/s",
    )
    assert growth < 50
    half = len(files) // 2  # each decoding thread has a file open now and then
    assert max(files[half:]) <= max(files[:half]) + 1
