"""A model directory loads in a process that only imports the store."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import keras
from probrt.trainer import store
print(*keras.saving.get_custom_objects())
"""


def test_the_store_registers_every_layer(root: Path) -> None:
    pattern = r"@keras\.saving\.register_keras_serializable\(package=\"probrt\"\)\nclass (\w+)"
    layers = {name for path in (root / "trainer").rglob("*.py") for name in re.findall(pattern, path.read_text())}
    process = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert {f"probrt>{name}" for name in layers} <= set(process.stdout.split())
    assert len(layers) > 10
