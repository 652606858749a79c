"""A decoder in a process of its own: killed, hanging or out of memory, it costs its image alone."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from damage import FREE, encode_image, make_bombs, make_photo
from PIL import Image

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.images.isolate import open_isolated_reader
from probrt.runtime.images.loader import LoadedImage, Loader, load_image

GREY = Input(shape=[24, 20, 1], colour="grey", resize="bilinear", range=(0, 255))


def load_all(names: Iterator[str], input: Input, workers: int = 2, **options: float) -> list[LoadedImage]:
    opening = partial(open_isolated_reader, **options)
    return list(Loader(names, input, workers, window=8, open_reader=opening))


def test_the_images_are_those_of_threads(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "empty.png").write_bytes(b"")
    np.save(tmp_path / "array.npy", np.ones((24, 20)))
    for i, image in enumerate((make_photo(), make_photo(30, 40).convert("L"), make_photo().quantize(9))):
        image.save(tmp_path / f"{i}.png")
    for i, (_, data) in enumerate(make_bombs()):
        (tmp_path / f"bomb{i}").write_bytes(data)
    (tmp_path / os.fsdecode(b"\xff name\n.png")).write_bytes(encode_image(make_photo()))
    names = sorted(str(path) for path in tmp_path.iterdir())
    for input in (GREY, FREE):
        for image, (index, name) in zip(load_all(iter(names), input), enumerate(names), strict=True):
            expected = load_image(index, name, input)
            assert (image.index, image.name, image.sha256) == (index, name, expected.sha256)
            assert (image.error, image.frames) == (expected.error, expected.frames)
            np.testing.assert_array_equal(image.pixels, expected.pixels)


def test_volumes_keep_their_affine(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(np.ones((3, 4, 5), np.float32), np.diag([2, 3, 4, 1.0])), tmp_path / "v.nii.gz")
    (image,) = load_all(iter([str(tmp_path / "v.nii.gz")]), Input(shape=[5, 4, 3, 1], colour="none", resize="none"))
    assert image.affine is not None
    np.testing.assert_array_equal(np.diag(image.affine), [2, 3, 4, 1])


@pytest.mark.slow
def test_a_killed_decoder_costs_its_image_alone(tmp_path: Path) -> None:
    """SIGKILL arrives while a picture is decoded; the reader starts a new process for the next one."""
    pixels = np.random.default_rng(0).integers(0, 256, (6000, 6000), np.uint8)  # noise takes long to decode
    Image.fromarray(pixels).save(tmp_path / "large.png", compress_level=1)
    make_photo().save(tmp_path / "small.png")
    small, large = str(tmp_path / "small.png"), str(tmp_path / "large.png")
    killed = []

    def kill_busy_decoder() -> None:
        deadline = time.monotonic() + 60
        while not killed and time.monotonic() < deadline:
            for child in psutil.Process().children():
                if child.memory_info().rss > 80 << 20 and "isolate_worker" in " ".join(child.cmdline()):
                    os.kill(child.pid, signal.SIGKILL)
                    killed.append(child.pid)

    killer = threading.Thread(target=kill_busy_decoder)
    killer.start()
    images = load_all(iter([small, large, small, small]), GREY, workers=1)
    killer.join()
    assert killed
    assert [image.error for image in images] == ["", "its decoder died (exit code -9)", "", ""]


@pytest.mark.slow
def test_a_decoder_that_takes_too_long_costs_its_image_alone(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (6000, 6000), np.uint8)).save(tmp_path / "large.png")
    make_photo(8, 8).save(tmp_path / "small.png")
    names = [str(tmp_path / name) for name in ("small.png", "large.png", "small.png")]
    images = load_all(iter(names), GREY, workers=1, seconds=0.1)
    assert [image.error for image in images] == ["", "takes longer than 0.1 s to decode", ""]


def test_no_process_outlives_its_reader(tmp_path: Path) -> None:
    make_photo().save(tmp_path / "a.png")
    before = {child.pid for child in psutil.Process().children()}
    load_all(iter([str(tmp_path / "a.png")] * 3), GREY)
    deadline = time.monotonic() + 10
    while {child.pid for child in psutil.Process().children()} - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not {child.pid for child in psutil.Process().children()} - before
