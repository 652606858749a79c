"""The schemas, commands, flags, links and paths in the docs agree with the code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from probrt.runtime.bundle import manifest_file
from probrt.trainer import backbones, heads
from probrt.trainer.config import config

TOP = Path(__file__).parent.parent
PAGES = sorted([*TOP.glob("*.md"), *(TOP / "docs").glob("*.md"), TOP / "artifacts" / "README.md"])


@pytest.mark.parametrize(
    ("name", "schema"),
    [("manifest.schema.json", manifest_file.json_schema), ("config.schema.json", config.json_schema)],
)
def test_schemas_are_those_of_the_code(name: str, schema: object) -> None:
    expected = json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"
    path = TOP / "docs" / name
    assert path.read_text() == expected, f"{path} is out of date: run python docs/write_schemas.py"


def find_shell_lines() -> list[tuple[str, str]]:
    """Returns the page and the text of every `probrt …` line in a shell block."""
    lines = []
    for page in PAGES:
        for block in re.findall(r"```(?:sh|console)\n(.*?)```", page.read_text(), re.DOTALL):
            joined = block.replace("\\\n", " ")
            lines += [
                (page.name, line.removeprefix("$ ")) for line in joined.splitlines() if re.match(r"(\$ )?probrt ", line)
            ]
    return lines


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """The output of `--help` of every command in the docs."""
    names = {line.split()[1] for _, line in find_shell_lines()}
    return {
        name: subprocess.run(
            [Path(sys.executable).parent / "probrt", name, "--help"], capture_output=True, text=True, check=True
        ).stdout
        for name in names
        if not name.startswith("-")
    }


def test_commands_and_flags_in_the_docs_exist(helps: dict[str, str]) -> None:
    assert find_shell_lines()
    for page, line in find_shell_lines():
        command, *words = line.split("#")[0].split()[1:]
        if command.startswith("-"):
            continue
        for flag in (word.split("=")[0] for word in words if word.startswith("--")):
            assert flag in helps[command], f"{page}: {line!r}: no flag {flag}"


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target} does not exist"


def test_every_head_and_backbone_is_described(root: Path) -> None:
    page = (root / "docs" / "models.md").read_text()
    for kind in (*heads.HEADS.built_in, *backbones.BACKBONES.built_in):
        assert f"| `{kind.__struct_config__.tag}` |" in page


def test_every_example_is_described(root: Path) -> None:
    page = (root / "docs" / "examples.md").read_text()
    for config_path in (root / "examples").glob("*/*.toml"):
        assert f"examples/{config_path.parent.name}/{config_path.name}" in page


def test_paths_of_the_architecture_exist(root: Path) -> None:
    """Paths start at the root, or at the folder that the paragraph names first."""
    page = re.sub(r"```.*?```", "", (root / "docs" / "architecture.md").read_text(), flags=re.DOTALL)
    for paragraph in page.split("\n\n"):
        paths = re.findall(r"`([\w./-]+(?:\.py|/))`", paragraph)
        folder = next((path for path in paths if path.endswith("/")), "")
        for path in paths:
            assert (root / path).exists() or (root / folder / path).exists(), f"{path} does not exist"
