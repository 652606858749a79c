"""The table of commands, help, and how faults become a line and an exit code."""

import platform
from importlib import metadata
from pathlib import Path

import pytest

from probrt.runtime import cli
from probrt.runtime.commands.faults import report_fault
from probrt.runtime.commands.table import Command, list_commands
from probrt.runtime.engines import Engine
from probrt.runtime.errors import StorageError, UsageError


def test_every_command_of_the_table_loads_and_helps(capsys: pytest.CaptureFixture[str]) -> None:
    table = list_commands()
    assert {"train", "export", "predict", "inspect", "verify", "bench", "report", "doctor"} <= table.keys()
    assert cli.call(["--help"]) == 0
    overview = capsys.readouterr().out
    for name in table:
        assert f"  {name} " in overview
        assert cli.call([name, "--help"]) == 0
        assert f"Usage: probrt {name}" in capsys.readouterr().out


def test_the_version_names_every_engine(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "installed", property(lambda engine: engine.name != "openvino"))
    assert cli.call(["--version"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == f"probrt {metadata.version('probrt')}, Python {platform.python_version()}"
    versions = dict(line.split(maxsplit=1) for line in lines)
    assert versions["litert"] == metadata.version("ai-edge-litert")
    assert versions["openvino"] == "missing  pip install 'probrt[openvino]'"
    assert versions["onnxruntime"] == metadata.version("onnxruntime")


def test_functions_that_do_not_exist_are_not_listed() -> None:
    assert Command("x", "probrt.runtime.commands.predict:predict", "").exists
    assert not Command("x", "probrt.runtime.commands.predict:fly", "").exists
    assert not Command("x", "probrt.nowhere.cli:fly", "").exists


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, ""),
        (["fly"], 2, "no command fly; there are: "),
        (["inspect"], 2, "Missing argument"),
        (["label", "gone", "--take", "0"], 2, "1. See `probrt label --help`."),
        (["verify", "gone"], 2, "no such bundle folder"),
        (["bench", "gone", "--batch", "0"], 2, "gone"),
        (["report", "gone.jsonl"], 2, "gone.jsonl: no such file"),
    ],
)
def test_codes_and_one_line(
    words: list[str], code: int, message: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert cli.call(words) == code
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") <= 1
    if words:
        assert cli.call([*words, "--debug"]) == code
        assert ("Traceback" in capsys.readouterr().err) == bool(message)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UsageError("--out x: exists"), 2, "--out x: exists"),
        (StorageError("x: the disk is full"), 3, "x: the disk is full"),
        (OSError(28, "No space left on device", "x.csv"), 3, "x.csv: No space left on device"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ZeroDivisionError("a\nb"), 3, "internal fault (ZeroDivisionError: a b); run again with --debug for details"),
        (UsageError(""), 2, "UsageError"),
    ],
)
def test_every_fault_is_a_line_and_a_code(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report_fault(error, "predict", debug=False) == code
    assert capsys.readouterr().err == f"probrt: {message}\n"
