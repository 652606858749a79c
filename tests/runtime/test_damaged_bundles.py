"""Damage with digests computed anew: one line that names the file, exit 2; never a signal, a hang or a traceback."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle_damage import damage_manifest
from shapes import GOLDEN

from probrt.runtime import cli
from probrt.runtime.bundle.bundle import Bundle

# Loads and runs damaged copies one after another, as a trial does, in one process: engines are slow to start.
_SCRIPT = """
import json, sys, tempfile
from pathlib import Path
from bundle_damage import damage_file
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.engines import BUILT_IN
from probrt.runtime.engines.probe import make_request
from probrt.runtime.engines.probe_process import answer_request
from probrt.runtime.predict import trial
folder, name, engine, first, last = sys.argv[1:]
bundle, engine = Bundle.open(folder), next(known for known in BUILT_IN if known.name == engine)
for seed in range(int(first), int(last)):
    with tempfile.TemporaryDirectory() as copy:
        changed = damage_file(bundle, Path(copy), name, seed)
        kinds = ("mean", "sampled") if engine.format == "savedmodel" else (Path(name).stem.partition("-")[0],)
        graphs = [graph for graph in trial.list_graphs(changed, engine)
                  if graph.source.variant in kinds and name in {file.path for file in graph.call.files}]
        calls = [trial.make_call(changed, graph) for graph in graphs]
        print(json.dumps({"begin": seed}), flush=True)
        for graph, response in zip(graphs, answer_request(make_request(changed, engine, calls)), strict=True):
            fault = trial.find_fault(changed, graph, response)
            print(json.dumps({"seed": seed, "fault": str(fault or "")}), flush=True)
"""


def try_damage(folder: Path, name: str, engine: str, count: int) -> Counter[str]:
    """Runs damaged copies of a file, in a new process after one that a copy ended; returns what came of them."""
    outcomes: Counter[str] = Counter()
    first = 0
    while first < count:
        words = [sys.executable, "-c", _SCRIPT, folder, name, engine, first, count]
        process = subprocess.run(
            list(map(str, words)),
            capture_output=True,
            text=True,
            check=False,
            timeout=3600,
            cwd=Path(__file__).parents[1],  # where the script finds `bundle_damage`
        )
        lines = [line for line in process.stdout.splitlines() if line.startswith("{")]  # engines print, too
        for line in map(json.loads, lines):
            first = line.get("begin", first)
            if fault := line.get("fault"):
                assert name.split("/")[0] in fault, fault
                outcomes["refused"] += 1
            elif "seed" in line:
                outcomes["answers"] += 1
        first += 1
        if process.returncode:
            assert process.returncode < 0, process.stderr[-2000:]  # a signal: a trial makes a line of it
            outcomes[f"ends its process by signal {-process.returncode}"] += 1
    return outcomes


# By file and engine: how many copies every run tries, and how many `make stress`. TensorFlow takes a second for each.
FILES = [
    ("mean.tflite", "litert", 40, 2000),
    ("mean.onnx", "onnxruntime", 40, 2000),
    ("mean.onnx", "openvino", 24, 500),
    ("saved_model.pb", "tensorflow", 6, 200),
    ("variables/variables.index", "tensorflow", 3, 100),
    ("variables/variables.data-00000-of-00001", "tensorflow", 3, 100),
]


def bundle_with(bundle: Bundle, name: str) -> Bundle:
    """The bundle of the runtime's tests, which has no variables, or the exporter's."""
    return Bundle.open(GOLDEN / "bundle") if name.startswith("variables") else bundle


@pytest.mark.parametrize(("name", "engine", "count"), [row[:3] for row in FILES])
def test_a_damaged_file_is_named(bundle: Bundle, name: str, engine: str, count: int) -> None:
    outcomes = try_damage(bundle_with(bundle, name).path, name, engine, count)
    assert outcomes["refused"]


@pytest.mark.stress
@pytest.mark.parametrize(("name", "engine", "count"), [(name, engine, count) for name, engine, _, count in FILES])
def test_many_damaged_files_are_named(
    bundle: Bundle, measured: Callable[[str, str], None], name: str, engine: str, count: int
) -> None:
    outcomes = try_damage(bundle_with(bundle, name).path, name, engine, count)
    assert outcomes["refused"]
    result = ", ".join(f"{number} {outcome}" for outcome, number in outcomes.items())
    print(result)
    measured(f"{count} damaged {name} with digests computed anew, on {engine}", result)


def predict_damaged(bundle: Bundle, folder: Path, pictures: Path, seeds: range) -> Counter[int]:
    """Runs inspect and predict with a bundle whose manifest is damaged; returns the exit codes of predict."""
    codes: Counter[int] = Counter()
    shutil.copytree(bundle.path, folder)
    for seed in seeds:
        (folder / "probrt.json").write_bytes(damage_manifest(bundle.manifest, seed))
        words = [
            "predict",
            pictures / "00.png",
            pictures / "01.png",
            "--bundle",
            folder,
            "--out",
            folder.parent / "p.jsonl",
        ]
        words += ["--engine", "litert", "--overwrite", "--quiet"]
        code = cli.call([str(word) for word in words])
        codes[code] += 1
        assert code in (0, 1, 2), seed
        assert cli.call(["inspect", str(folder)]) in (0, 2), seed
    return codes


def test_a_damaged_manifest_is_refused_or_works(
    bundle: Bundle, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = predict_damaged(bundle, tmp_path / "1", pictures, range(60))
    assert codes[2]
    assert "internal fault" not in capsys.readouterr().err


@pytest.mark.stress
def test_two_thousand_damaged_manifests_are_refused_or_work(
    bundle: Bundle,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    measured: Callable[[str, str], None],
) -> None:
    codes = predict_damaged(bundle, tmp_path / "1", pictures, range(2000))
    assert "internal fault" not in capsys.readouterr().err
    measured("2,000 damaged manifests", f"{codes[2]} refused, {codes[0] + codes[1]} predicted")
