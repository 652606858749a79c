"""Batches depend on the images and their order, never on the speed of a thread."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import Input
from probrt.runtime.images import batches
from probrt.runtime.images.batches import ImageBatch, load_batches
from probrt.runtime.images.loader import Loader

FREE = Input(shape=[None, None, 1], colour="grey", resize="none", range=(0, 255))


@pytest.fixture(scope="module")
def slow_picture(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A picture that takes hundreds of times as long to decode as the others."""
    path = tmp_path_factory.mktemp("slow") / "slow.png"
    Image.effect_noise((5000, 5000), 90).save(path, compress_level=1)
    return str(path)


@pytest.fixture
def names(pictures: Path, slow_picture: str, tmp_path: Path) -> list[str]:
    """The slow picture first and in the middle, and a damaged one."""
    (tmp_path / "damaged.png").write_bytes(b"no image")
    small = [str(pictures / "00.png")] * 30
    return [slow_picture, *small, str(tmp_path / "damaged.png"), slow_picture, *small]


def compose(names: list[str], input: Input, batch_size: int, workers: int) -> list[list[int] | int | None]:
    """Returns the indices of the images in each batch, those of unreadable files, and None at the end of a block."""
    composition: list[list[int] | int | None] = []
    for ready in load_batches(iter(names), input, batch_size, workers):
        if isinstance(ready, ImageBatch):
            assert len({image.pixels.shape for image in ready.images if image.pixels is not None}) == 1
            composition.append([image.index for image in ready.images])
        else:
            composition.append(None if ready is None else ready.index)
    return composition


@pytest.mark.slow
@pytest.mark.parametrize("free", [False, True])
def test_batches_are_the_same_with_any_number_of_threads(bundle: Bundle, names: list[str], free: bool) -> None:
    input = FREE if free else bundle.manifest.input
    serial = compose(names, input, 4, workers=1)
    for workers in (2, 5):
        assert compose(names, input, 4, workers) == serial
    indices = [
        index for entry in serial if entry is not None for index in (entry if isinstance(entry, list) else [entry])
    ]
    assert sorted(indices) == list(range(len(names)))
    assert 31 in serial
    if not free:
        assert serial[:4] == [[0, 1, 2, 3], None, [4, 5, 6, 7], None]


@pytest.mark.parametrize("free", [False, True])
def test_a_run_that_starts_at_a_block_makes_the_same_batches(bundle: Bundle, names: list[str], free: bool) -> None:
    input = FREE if free else bundle.manifest.input
    block = batches.block_size(input, 4)
    whole = compose(names, input, 4, workers=2)
    later = compose(names[block:], input, 4, workers=2)
    after_block = whole[whole.index(None) + 1 :]
    moved = [[i + block for i in entry] if isinstance(entry, list) else entry and entry + block for entry in later]
    assert moved == after_block


def test_large_pictures_do_not_wait_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MAX_WAITING_BYTES", 3 * 100 * 4)
    names = []
    for index in range(8):
        np.save(tmp_path / f"{index}.npy", np.zeros((10, 10 + index % 2), np.float32))
        names.append(str(tmp_path / f"{index}.npy"))
    waiting = compose(names, FREE, 8, workers=2)
    assert waiting == [[0, 2], [1, 3], [4, 6], [5, 7], None]


def test_the_last_batch_knows_it(pictures: Path, bundle: Bundle) -> None:
    for count in (1, 4, 7, 8, 33):
        ready = load_batches(iter([str(pictures / "00.png")] * count), bundle.manifest.input, 4, 2)
        flags = [batch.last for batch in ready if isinstance(batch, ImageBatch)]
        assert flags == [False] * (len(flags) - 1) + [True]


def test_names_are_taken_no_further_than_the_window(pictures: Path, bundle: Bundle) -> None:
    taken = 0

    def take() -> Iterator[str]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield str(pictures / "00.png")

    for image in Loader(take(), bundle.manifest.input, workers=3, window=8):
        assert taken <= image.index + 8


def test_a_fault_of_a_thread_arrives(bundle: Bundle) -> None:
    broken = msgspec.structs.replace(bundle.manifest.input, shape=7)
    with pytest.raises(TypeError):
        list(Loader(iter([__file__, __file__]), broken, workers=2, window=4))
