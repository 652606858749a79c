"""Checkpoints survive a full disk, and damaged ones are detected and skipped."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest

from probrt.runtime.errors import DataError, StorageError
from probrt.trainer.fit.checkpoints import Checkpoints, FitState


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    """A limit on the size of files acts as a full disk."""
    lines: list[str] = []
    checkpoints = Checkpoints(tmp_path / "checkpoints", lines.append)
    arrays = {"variable": [np.arange(1000.0)]}
    for step in (1, 2, 3):
        checkpoints.save(FitState(step=step), arrays)
    before = checkpoints.paths()
    assert [path.name for path in before] == ["00000003.npz", "00000002.npz"]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    try:
        with pytest.raises(StorageError, match="the checkpoint of step 3 is kept; make room and go on with --resume"):
            checkpoints.save(FitState(step=4), arrays)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(checkpoints.folder.iterdir(), reverse=True) == before
    state, loaded = checkpoints.load_newest({})
    assert (state.step, loaded["variable"][0].tolist()) == (3, arrays["variable"][0].tolist())
    with np.load(before[0]) as archive:
        assert archive.files == ["state", "variable_00000"]
    data = before[0].read_bytes()
    for damaged in (data[: len(data) // 2], data[:-1], data[:250] + b"\xff" + data[251:], b""):
        before[0].write_bytes(damaged)
        assert checkpoints.load_newest({})[0].step == 2
    assert len(lines) == 4
    with pytest.raises(DataError, match="belongs to another fit: the data differ"):
        checkpoints.load_newest({"data": "b"})
    before[1].write_bytes(b"PK")
    with pytest.raises(DataError, match="every checkpoint is damaged"):
        checkpoints.load_newest({})
