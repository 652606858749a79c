"""The loader bounds the memory of decoded images by bytes, not only by their number."""

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from damage import FREE, make_photo, measure_peak
from PIL import Image

from probrt.runtime.images import loader
from probrt.runtime.images.loader import Loader


@pytest.fixture
def names(tmp_path: Path) -> list[str]:
    """Pictures of several sizes; the first one is the slowest to decode."""
    names = [str(tmp_path / f"{i}.png") for i in range(12)]
    for i, name in enumerate(names):
        make_photo(400 - 30 * i, 300).save(name)
    return names


@pytest.mark.parametrize("limit", [0, 1 << 20, 1 << 30])
def test_every_limit_gives_all_images_in_order(monkeypatch: pytest.MonkeyPatch, names: list[str], limit: int) -> None:
    monkeypatch.setattr(loader, "MAX_LOADED_BYTES", limit)
    images = list(Loader(iter(names), FREE, workers=4, window=8))
    assert [image.name for image in images] == names
    assert [image.pixels.shape[0] for image in images if image.pixels is not None] == [400 - 30 * i for i in range(12)]


@pytest.mark.stress
def test_large_pictures_stay_within_the_limit(tmp_path: Path, measured: Callable[[str, str], None]) -> None:
    """Sixteen pictures of 147 MB each, four threads, a reader who is slower than they are."""
    pixels = np.zeros((3500, 3500, 3), np.uint8)
    for i in range(16):
        Image.fromarray(pixels).save(tmp_path / f"{i:02}.png", compress_level=1)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        growth = pool.apply(load_slowly, (sorted(str(path) for path in tmp_path.iterdir()),))
    measured("sixteen pictures of 147 MB before a slow reader", f"growth {growth:.0f} MB")
    assert growth < 1100  # 256 MB, the next image, that of the reader, and what malloc keeps for each thread


def load_slowly(names: list[str]) -> float:
    """Returns the growth of the memory in megabytes; for a process of its own."""
    with measure_peak() as peak:
        for _ in Loader(iter(names), FREE, workers=4, window=32):
            time.sleep(0.2)
    return peak.growth
