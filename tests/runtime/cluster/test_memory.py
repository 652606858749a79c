"""A local Ray is refused where it would abort."""

from pathlib import Path

import pytest

from probrt.runtime.cluster import memory
from probrt.runtime.errors import Fault


@pytest.mark.parametrize(("kilobytes", "enough"), [(200_000, False), (2_000_000, True)])
def test_free_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kilobytes: int, enough: bool) -> None:
    (tmp_path / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemFree: 1 kB\nMemAvailable:  {kilobytes} kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    if enough:
        memory.check_memory()
    else:
        with pytest.raises(Fault, match="195 MB are free"):
            memory.check_memory()


def test_a_system_that_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "none")
    memory.check_memory()
