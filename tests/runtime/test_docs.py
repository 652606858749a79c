"""The pages of the runtime name every option and every engine, and their Python code runs."""

import re
from pathlib import Path

import numpy as np
import pytest
import typer

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.commands import bench, doctor, report, verify
from probrt.runtime.commands import predict as commands
from probrt.runtime.engines import BUILT_IN

DOCS = Path(__file__).parents[2] / "docs"
PREDICT, ENGINES = (DOCS / "predict.md").read_text(), (DOCS / "engines.md").read_text()


def list_options(function: object) -> set[str]:
    """Lists the long options of a command."""
    command = typer.Typer(add_completion=False)
    command.command()(function)
    parameters = typer.main.get_command(command).params
    return {name for parameter in parameters for name in parameter.opts if name.startswith("--")} - {"--help"}


def test_every_option_of_predict_is_in_its_page() -> None:
    known = list_options(commands.predict)
    mentioned = set(re.findall(r"--[a-z][a-z-]+", PREDICT))
    unexplained = {"--device", "--precision", "--engine", "--recursive"}  # in engines.md, and --no-recursive
    assert known - mentioned <= unexplained
    other_commands = (report.report, bench.bench, doctor.doctor, verify.verify)
    others = set().union(*map(list_options, other_commands)) | {"--no-recursive", "--debug"}
    assert mentioned <= known | others


@pytest.mark.parametrize("engine", BUILT_IN, ids=lambda engine: engine.name)
def test_the_table_of_engines_is_the_table(engine: object) -> None:
    line = next(line for line in ENGINES.splitlines() if line.startswith(f"| `{engine.name}`"))
    assert all(device in line for device in engine.devices)
    assert (engine.install if engine.extra else "base install") in line
    assert {"tflite": "TFLite", "onnx": "ONNX", "savedmodel": "SavedModel"}[engine.format] in line


def test_the_python_of_the_pages_runs(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r"```python\n(.*?)```", PREDICT, re.DOTALL)
    assert code is not None
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "digits").symlink_to(bundle.path.parent)
    monkeypatch.chdir(tmp_path)
    names = {"images": np.zeros((2, 12, 12, 1), np.float32)}
    text = code.group(1).replace("samples=32", "samples=8").replace('["digit"]', '["shape"]')
    exec(text, names)
    assert names["prediction"]["shape"].mean.shape == (2, 3)
    code = re.search(r"```python\n(.*?)```", ENGINES, re.DOTALL)
    assert code is not None
    exec(code.group(1), names)
    assert names["abacus"].installed is False
