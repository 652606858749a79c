"""Only trainer/keras_internals.py uses Keras's private API."""

from __future__ import annotations

import ast
from pathlib import Path

# Adoption walks networks of the legacy Keras, whose private API no longer changes.
ALLOWED = {"trainer/keras_internals.py", "trainer/adopt/network.py"}


def find_private_attributes(path: Path) -> list[str]:
    """Lists the uses of other objects' private attributes in a file."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    ]


def test_private_attributes_are_used_in_one_file(root: Path) -> None:
    paths = [path for package in ("trainer", "exporter") for path in (root / package).rglob("*.py")]
    users = {path.relative_to(root).as_posix() for path in paths if find_private_attributes(path)}
    assert users == ALLOWED
