"""What `bench --save` keeps decides the engine: for this bundle, these variants and many images alone."""

from pathlib import Path

import pytest

from probrt.runtime import cli
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.predict import timings
from probrt.runtime.predict.choose import PredictRequest, choose
from probrt.runtime.predict.timings import Timing, rank_engines, read_timings, save_timings


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


MEASURED = [
    Timing("litert", "float32", "draws", 300.0),
    Timing("onnxruntime", "float32", "draws", 400.0),
    Timing("openvino", "float32", "draws", 200.0),
    Timing("openvino", "float32", "mean", 9000.0),
    Timing("litert", "float32", "mean", 800.0),
]


def test_the_fastest_measured_engine_answers(bundle: Bundle) -> None:
    assert choose(bundle, PredictRequest()).engine.name == "openvino"
    save_timings(bundle, MEASURED)
    plan = choose(bundle, PredictRequest())
    assert plan.engine.name == "onnxruntime"
    assert plan.why.startswith("the fastest by `probrt bench --save`")
    assert choose(bundle, PredictRequest(variant="mean")).engine.name == "openvino"
    assert choose(bundle, PredictRequest(few=True)).engine.name == "litert"
    assert choose(bundle, PredictRequest(engine="litert")).why == "as asked"
    # Nothing was measured for draws made in the graph, or in half precision.
    assert choose(bundle, PredictRequest(seed=5)).why.startswith("the fastest that can")
    assert rank_engines(bundle, "float16", ("draws",)) == []


def test_later_timings_replace_and_add(bundle: Bundle) -> None:
    path = save_timings(bundle, MEASURED)
    assert save_timings(bundle, [Timing("openvino", "float32", "draws", 500.0)]) == path
    assert len(read_timings(bundle)) == len(MEASURED)
    assert rank_engines(bundle, "float32", ("draws", "sampled")) == ["openvino", "onnxruntime", "litert"]


def test_timings_of_another_machine_or_in_a_broken_file_do_not_count(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_timings(bundle, MEASURED)
    assert path.parent.parent.stat().st_mode & 0o077 == 0
    with monkeypatch.context() as patch:
        patch.setattr(timings, "_read_processor", lambda: "another")
        assert read_timings(bundle) == []
    for content in (b"", b"[1]", b"\xff", b'[{"engine": "litert"}]'):
        path.write_bytes(content)
        assert read_timings(bundle) == []
    assert choose(bundle, PredictRequest()).engine.name == "openvino"


@pytest.mark.slow
def test_bench_saves_what_it_has_measured(bundle: Bundle, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["bench", str(bundle.path), "--batch", "1,2", "--seconds", "0", "--engine", "litert", "--save"]
    assert cli.call(command) == 0
    assert "saved " in capfd.readouterr().out
    saved = read_timings(bundle)
    assert [(timing.engine, timing.precision, timing.variant) for timing in saved] == [
        ("litert", "float32", variant) for variant in ("mean", "draws", "sampled")
    ]
    assert all(timing.images_per_second > 0 for timing in saved)
