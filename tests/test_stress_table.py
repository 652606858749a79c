"""The table of what the stress tests tried."""

from pathlib import Path

import pytest
from stress_table import END, START, Line, collect_lines, write_lines


def test_the_table_replaces_only_itself(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    write_lines([Line("kill -9 | 50 moments", "no row lost", True, 12.3), Line("x", "y", False, 0.2)], page)
    lines = page.read_text().splitlines()
    assert (lines[0], lines[1], lines[-2], lines[-1]) == ("before", START, END, "after")
    assert lines[4:6] == ["| kill -9 \\| 50 moments | no row lost | held | 12 s |", "| x | y | FAILED | 0 s |"]


def test_a_failed_test_keeps_its_line(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_a(record_property):
            record_property("measured", ("tried", "3 of 4"))
            assert False
        """
    )
    run = pytester.inline_run("-p", "no:cacheprovider")
    reports = [call.report for call in run.getcalls("pytest_runtest_logreport")]
    assert [line.cells[:3] for line in collect_lines(reports)] == [("tried", "3 of 4", "FAILED")]
