"""The table of commands, help, exit codes, and the commands that read a bundle."""

import json
import shutil
from pathlib import Path

import pytest

from probrt.runtime import cli
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.commands.table import Command, list_commands


def test_every_command_of_the_table_loads_and_helps(capsys: pytest.CaptureFixture[str]) -> None:
    table = list_commands()
    assert {"train", "export", "predict", "inspect", "verify", "bench", "report", "doctor"} <= table.keys()
    assert cli.call(["--help"]) == 0
    overview = capsys.readouterr().out
    for name in table:
        assert f"  {name} " in overview
        assert cli.call([name, "--help"]) == 0
        assert f"Usage: probrt {name}" in capsys.readouterr().out


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


def test_inspect_and_verify(bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call(["verify", str(bundle.path)]) == 0
    assert "all as exported" in capsys.readouterr().out
    assert cli.call(["inspect", str(bundle.path.parent)]) == 0
    out = capsys.readouterr().out
    for word in ("shapes/1", "[12, 12, 1] grey, 0 to 255", "slant [rad]: normal", "draws-01.tflite", "bank of 8"):
        assert word in out
    copy = tmp_path / "1"
    shutil.copytree(bundle.path, copy)
    for name in ("mean.onnx", "draws-00.tflite"):
        (copy / name).write_bytes((copy / name).read_bytes()[:-1])
    assert cli.call(["verify", str(copy)]) == 2
    err = capsys.readouterr().err
    assert "mean.onnx: was altered" in err
    assert "draws-00.tflite: was altered" in err
    (copy / "extra").write_text("")
    assert cli.call(["verify", str(copy)]) == 2
    assert "not listed" in capsys.readouterr().err
    manifest = json.loads((copy / "probrt.json").read_text())
    (copy / "probrt.json").write_text(json.dumps({**manifest, "format": 9, "probrt": "7.1.0", "new": 1}))
    assert cli.call(["inspect", str(copy)]) == 2
    assert "install probrt 7.1.0 or newer" in capsys.readouterr().err


def test_doctor_names_engines_and_times_them(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call(["doctor", "--bundle", str(bundle.path)]) == 0
    out = capsys.readouterr().out
    for name in ("litert", "onnxruntime", "openvino", "tensorflow"):
        assert name in out
    assert out.count("first image") == 4


def test_bench_prints_every_engine_and_variant(bundle: Bundle, capfd: pytest.CaptureFixture[str]) -> None:
    # A short call each: the test is about the table, not about the figures.
    assert cli.call(["bench", str(bundle.path), "--batch", "1", "--seconds", "0", "--engine", "litert"]) == 0
    lines = [line.split()[:4] for line in capfd.readouterr().out.splitlines()[2:]]
    assert lines == [["litert", "mean", "0", "1"], ["litert", "draws", "8", "1"], ["litert", "sampled", "8", "1"]]
