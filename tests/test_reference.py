"""The pages that docs/write_reference.py writes are those of the code."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

WRITER = runpy.run_path(str(Path(__file__).parent.parent / "docs" / "write_reference.py"))


@pytest.mark.parametrize("page", WRITER["PAGES"])
def test_the_page_is_current(root: Path, page: str) -> None:
    text = (root / "docs" / page).read_text(encoding="utf-8")
    assert WRITER["PAGES"][page]() == text, f"docs/{page} is out of date: python docs/write_reference.py"


def test_the_site_has_no_words_of_other_libraries_docstrings(root: Path) -> None:
    """Meanings of keys come from the records' own docstrings, never from those of msgspec's classes."""
    assert ">>>" not in (root / "docs" / "configuration.md").read_text(encoding="utf-8")
