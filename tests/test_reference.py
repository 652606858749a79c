"""The pages that docs/write_reference.py writes are those of the code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of today, written by a process of their own: other tests define heads of theirs in this one."""
    folder = tmp_path_factory.mktemp("reference")
    script = Path(__file__).parent.parent / "docs" / "write_reference.py"
    subprocess.run([sys.executable, script, folder], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("page", ["commands.md", "configuration.md", "bundle.md", "api.md"])
def test_the_page_is_current(root: Path, written: Path, page: str) -> None:
    text = (root / "docs" / page).read_text(encoding="utf-8")
    assert (written / page).read_text(encoding="utf-8") == text, f"docs/{page} is old: python docs/write_reference.py"


def test_the_site_has_no_words_of_other_libraries_docstrings(root: Path) -> None:
    """Meanings of keys come from the records' own docstrings, never from those of msgspec's classes."""
    assert ">>>" not in (root / "docs" / "configuration.md").read_text(encoding="utf-8")
