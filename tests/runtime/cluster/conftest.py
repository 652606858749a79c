"""fsspec from its own folder, and its store in memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from extra_packages import RAY, install


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, pictures: Path) -> Iterator[Any]:
    """fsspec's store in memory with the pictures under memory://bucket."""
    monkeypatch.syspath_prepend(str(install(*RAY)))
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(pictures), "/bucket", recursive=True)
    yield memory
    memory.rm("/", recursive=True)
