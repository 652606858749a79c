"""The commands that read a bundle: inspect, verify, doctor and bench."""

import json
import shutil
from pathlib import Path

import pytest

from probrt.runtime import cli
from probrt.runtime.bundle.bundle import Bundle


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


@pytest.mark.slow
def test_bench_prints_every_engine_and_variant(bundle: Bundle, capfd: pytest.CaptureFixture[str]) -> None:
    # A short call each: the test is about the table, not about the figures.
    assert cli.call(["bench", str(bundle.path), "--batch", "1", "--seconds", "0", "--engine", "litert"]) == 0
    lines = [line.split()[:-4] for line in capfd.readouterr().out.splitlines()[2:]]
    assert lines == [
        ["litert", "float32", variant, *draws.split(), "1"]
        for variant, draws in (("mean", "0"), ("draws", "8 8"), ("sampled", "8 8"))
    ]
