"""The runtime's bundle and pictures, without TensorFlow: the bundle is a committed one."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shapes import GOLDEN, SIDE, write_manifest

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.predict.trial import trust_files
from probrt.runtime.rows.journal import JournalWriter
from probrt.runtime.rows.numbers import Row


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """shapes/1: mean, draws and sampled in TFLite and ONNX, and a SavedModel, in a folder of the session's own."""
    folder = tmp_path_factory.mktemp("artifacts") / "shapes" / "1"
    shutil.copytree(GOLDEN / "shapes" / "1", folder)
    opened = Bundle.open(folder)
    trust_files(opened)  # engines are slow to start a second time; tests of the trial alter the files
    return opened


@pytest.fixture(scope="session")
def rewrite() -> Callable[..., Bundle]:
    """Writes a manifest for what lies in a folder."""
    return write_manifest


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty PNGs of random pixels, 12 x 12 grey, in two folders, with a file that is no image."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "more").mkdir()
    rng = np.random.default_rng(1)
    for i in range(20):
        pixels = rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / ("more" if i > 14 else "") / f"{i:02d}.png")
    (folder / "metadata.csv").write_text("file_name,shape\n")
    return folder


@pytest.fixture
def mixed(pictures: Path, tmp_path: Path) -> Path:
    """The pictures and some odd files."""
    folder = tmp_path / "mixed"
    shutil.copytree(pictures, folder)
    (folder / "03b.png").write_bytes(b"no image")
    os.mkfifo(folder / "05b.png")
    (folder / "07b.png").symlink_to(folder / "07b.png")
    (folder / "loop").symlink_to(folder)
    (folder / "a\nb.png").write_bytes((folder / "00.png").read_bytes())
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.png")).write_bytes((folder / "01.png").read_bytes())
    return folder


@pytest.fixture
def stop_after_writes(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """Interrupts a run, as Ctrl-C does, after it has written rows some times."""

    @contextmanager
    def stop(writes: int) -> Iterator[None]:
        left, write = writes, JournalWriter.write

        def write_or_stop(journal: JournalWriter, rows: Sequence[Row]) -> None:
            nonlocal left
            if not left:
                raise KeyboardInterrupt
            left -= 1
            write(journal, rows)

        with monkeypatch.context() as patch:
            patch.setattr(JournalWriter, "write", write_or_stop)
            yield

    return stop
