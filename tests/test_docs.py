"""Docs that cannot drift: schemas, commands and flags in the docs are those of the code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from probrt.runtime.bundle import manifest
from probrt.trainer import backbones, heads
from probrt.trainer.config import config

TOP = Path(__file__).parent.parent
PAGES = sorted(
    [TOP / "README.md", TOP / "CONTRIBUTING.md", *(TOP / "docs").glob("*.md"), TOP / "artifacts" / "README.md"]
)


@pytest.mark.parametrize(
    ("name", "schema"), [("manifest.schema.json", manifest.json_schema), ("config.schema.json", config.json_schema)]
)
def test_schemas_are_those_of_the_code(name: str, schema: object) -> None:
    """After a change: python -m pytest tests/test_docs.py shows it; copy the new text from `written`."""
    written = json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"
    path = TOP / "docs" / name
    assert path.read_text() == written, f"{path} is out of date: python docs/write_schemas.py"


def shell_lines() -> list[tuple[str, str]]:
    """Every `probrt …` line of every shell block."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```(?:sh|console)\n(.*?)```", page.read_text(), re.DOTALL):
            joined = block.replace("\\\n", " ")
            found += [
                (page.name, line.removeprefix("$ ")) for line in joined.splitlines() if re.match(r"(\$ )?probrt ", line)
            ]
    return found


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """`--help` of every command that the docs name."""
    names = {line.split()[1] for _, line in shell_lines()}
    return {
        name: subprocess.run(
            [Path(sys.executable).parent / "probrt", name, "--help"], capture_output=True, text=True, check=True
        ).stdout
        for name in names
        if not name.startswith("-")
    }


def test_commands_and_flags_in_the_docs_exist(helps: dict[str, str]) -> None:
    assert shell_lines()
    for page, line in shell_lines():
        command, *words = line.split("#")[0].split()[1:]
        if command.startswith("-"):
            continue
        for flag in (word.split("=")[0] for word in words if word.startswith("--")):
            assert flag in helps[command], f"{page}: {line!r}: no flag {flag}"


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target} is not there"


def test_every_head_and_backbone_is_described(root: Path) -> None:
    page = (root / "docs" / "models.md").read_text()
    for kind in (*heads.HEADS.built_in, *backbones.BACKBONES.built_in):
        assert f"| `{kind.__struct_config__.tag}` |" in page


def test_every_example_is_described(root: Path) -> None:
    page = (root / "docs" / "examples.md").read_text()
    for one in (root / "examples").glob("*/*.toml"):
        assert f"examples/{one.parent.name}/{one.name}" in page
