"""Export as a user does it, and what it must refuse: nothing unchecked is ever published."""

from __future__ import annotations

import dataclasses
import functools
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import BY_NAME
from processes import probrt

from probrt.exporter import bundle_writer, formats
from probrt.exporter import plan as plan_module
from probrt.exporter.constants import freeze_variables
from probrt.exporter.export import export
from probrt.exporter.graphs import compile_function
from probrt.exporter.onnx_convert import convert_to_onnx
from probrt.exporter.parity import Difference
from probrt.exporter.plan import ExportRequest
from probrt.exporter.ranking import compute_ranking
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.vetting import vet
from probrt.runtime.errors import BundleError, ParityError, StorageError, UsageError
from probrt.trainer import store
from probrt.trainer.network_parts import NetworkParts

REQUEST = ExportRequest(draws=8, select=False)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model directory."""
    folder = tmp_path_factory.mktemp("model") / "model"
    built = BY_NAME["conv2d_random_bias"].model()
    images = np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 2)).astype(np.float32)
    store.save_model(built, folder, images=images, provenance={"note": "a test"})
    return folder


def test_export_as_a_user(model: Path, tmp_path: Path, called: Callable[..., Any]) -> None:
    done = probrt("export", model, "--draws", 8, "--layout", "triton", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "draws-00.tflite" in done.stdout
    assert "for triton: artifacts/triton/conv2d_random_bias" in done.stdout
    assert {path.name for path in (tmp_path / "artifacts" / "triton").rglob("*.*")} >= {"model.onnx", "config.pbtxt"}
    assert not (tmp_path / "artifacts" / "triton-encoded").exists()  # its input has two channels: no picture
    assert "probrt predict --samples 8" in done.stdout
    assert "tensorflow/serving" in done.stdout
    bundle = Bundle.open(tmp_path / "artifacts" / "conv2d_random_bias")
    assert bundle.manifest.model.version == 1
    graphs = {f"{variant}.{format}" for variant in ("mean", "draws-00", "sampled") for format in ("tflite", "onnx")}
    assert {record.file for record in bundle.manifest.parity} == {"saved_model.pb", *graphs}
    assert all(record.absolute <= record.tolerance for record in bundle.manifest.parity)
    assert bundle.manifest.provenance.training == {"note": "a test"}
    assert [document.path for document in bundle.manifest.documents] == ["sbom.cdx.json", "answers.json"]
    for file in bundle.manifest.listed:
        bundle.check(file)
    again = called("export", model, "--draws", 8, "--version", 1, cwd=tmp_path)
    assert again.code == 2
    assert "never overwritten" in again.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--draws", "7"], "--draws 7: a bank has 8, 16, 24"),
        (["--draws", "0"], "--draws 0: a bank has 8, 16, 24"),
        (["--seed", "-1"], "--seed -1: must be 0 to"),
        (["--version", "0"], "--version 0: must be 1 or more"),
        (["--layout", "zip"], "--layout zip: choose bundle, triton, openvino or mlflow"),
        (["--layout", "openvino", "--formats", "tflite"], "--layout openvino: needs onnx in --formats"),
    ],
)
def test_bad_options(model: Path, tmp_path: Path, options: list[str], message: str, called: Callable[..., Any]) -> None:
    done = called("export", model, *options, cwd=tmp_path)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert message in done.err


def test_no_model_and_a_damaged_one(model: Path, tmp_path: Path, called: Callable[..., Any]) -> None:
    done = called("export", tmp_path / "none", cwd=tmp_path)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "no model here" in done.err
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in model.iterdir():
        (broken / path.name).write_bytes(path.read_bytes()[: 1000 if path.suffix == ".h5" else None])
    done = called("export", broken, cwd=tmp_path)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "damaged" in done.err
    assert not list(tmp_path.rglob("artifacts/*/*"))


def test_a_posterior_without_spread_is_not_published(model: Path, tmp_path: Path) -> None:
    """Scales of 1e-5 are no uncertainty: float32 loses the spread of an answer."""
    loaded, card = store.load_model(model)
    for weight in loaded.weights:
        weight.parameters["rho"].assign(tf.fill(weight.shape, -100.0))
    store.save_model(loaded, tmp_path / "model", images=store.load_images(model), provenance=card.provenance)
    with pytest.raises(ParityError, match="nothing was published"):
        export(tmp_path / "model", tmp_path / "artifacts", REQUEST)
    assert not list((tmp_path / "artifacts").rglob("*.json"))


def test_a_file_that_differs_is_not_published(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate catches a converter that writes other draws than those it is given."""
    make = bundle_writer.graphs.make_draws_function
    wrong_draws = functools.partial(_make_with_next_seed, make)
    monkeypatch.setattr(bundle_writer.graphs, "make_draws_function", wrong_draws)
    differences: list[Difference] = []
    with pytest.raises(ParityError, match=r"draws-00\.\w+: .* differs by"):
        export(model, tmp_path / "artifacts", REQUEST, on_check=differences.append)
    faulty = {difference.file for difference in differences if difference.faults}
    assert faulty == {"draws-00.tflite", "draws-00.onnx"}
    assert not list((tmp_path / "artifacts").rglob("*.json"))


def _make_with_next_seed(
    make: Callable[..., Any], model: Any, seed: int, indices: Sequence[int], with_novelty: bool
) -> Any:
    return make(model, seed + 1, indices, with_novelty)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("conv", r"in draw \(0, 0\) differs by"),  # random, and so not the same for all draws
        ("images", r"at the posterior mean differs by"),  # shared, but of other values
    ],
)
def test_a_wrong_split_is_not_published(
    layer: str, message: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Graphs and reference share the features of all draws, so only the whole network can show that they are wrong."""

    def split_wrongly(parts: NetworkParts) -> tuple[keras.Model, keras.Model]:
        network = parts.network
        features = network.get_layer(layer).output
        drawn = keras.Model([features], network.output)
        return keras.Model(network.input, [features if layer == "conv" else features * 1.1]), drawn

    monkeypatch.setattr(NetworkParts, "_halves", property(split_wrongly))
    request = ExportRequest(draws=8, select=False, formats=("onnx",), variants=("draws",))
    with pytest.raises(ParityError, match=message):
        export(model, tmp_path / "artifacts", request)
    assert not list((tmp_path / "artifacts").rglob("*.json"))


def test_ranking_with_ties() -> None:
    """Against Spearman's correlation by hand: ranks (1, 2.5, 2.5, 4) and (1, 2, 3, 4) have covariance 4.5."""
    tied, strict = np.array([[0.0], [1.0], [1.0], [2.0]]), np.array([[0.0], [1.0], [2.0], [3.0]])
    assert compute_ranking(tied, strict) == pytest.approx(4.5 / np.sqrt(4.5 * 5.0), abs=1e-12)
    assert compute_ranking(tied, tied) == pytest.approx(1.0)
    assert compute_ranking(-tied, tied) == pytest.approx(-1.0)
    # Differences of rounding are no other order; images that the model has all alike have none, and one answer for
    # images that it tells apart is no order of them.
    assert compute_ranking(strict + 1e-7 * strict[::-1], strict) == pytest.approx(1.0)
    assert compute_ranking(strict, np.ones((4, 1))) is None
    assert compute_ranking(np.ones((4, 1)), strict) == 0.0


def test_an_op_that_does_not_convert_is_named() -> None:
    """tf2onnx logs the op, writes a broken file and reports success; probrt does not."""
    spec = [tf.TensorSpec([None, 3], tf.float32, name="images")]
    function = compile_function(lambda images: {"a.mean": tf.math.lgamma(images)}, spec)
    with pytest.raises(ParityError, match=r"mean\.onnx: does not convert to ONNX: .*Lgamma"):
        convert_to_onnx(freeze_variables(function), "mean.onnx")


def start_export(model: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Starts `probrt export` in a process of its own."""
    program = "import sys; from probrt.runtime.cli import call; sys.exit(call(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "export", str(model), "--draws", "8", "--no-select"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_a_killed_export_publishes_nothing_and_the_next_one_clears_up(model: Path, tmp_path: Path) -> None:
    process = start_export(model, tmp_path)
    while not list(tmp_path.glob("artifacts/*/.unfinished-*/version/mean.onnx")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    (home,) = (tmp_path / "artifacts").iterdir()
    assert not list(home.glob("[0-9]*"))
    bundle = export(model, tmp_path / "artifacts", dataclasses.replace(REQUEST, formats=("tflite",))).bundle
    assert [path.name for path in home.iterdir()] == ["1"]
    for file in bundle.manifest.files:
        bundle.check(file)


@pytest.mark.stress
def test_50_killed_exports_under_a_watcher(model: Path, tmp_path: Path, measured: Callable[[str, str], None]) -> None:
    """Two exports at a time die by kill -9 at moments spread over their whole run, or finish.

    A watcher verifies every numeric folder as soon as it sees one.
    """
    checked: set[Path] = set()
    faults: list[str] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.002):
            for folder in set(tmp_path.glob("artifacts/*/[0-9]*")) - checked:
                checked.add(folder)
                try:
                    bundle = Bundle.open(folder)
                    for file in bundle.manifest.files:
                        vet(bundle, file)
                except BundleError as error:
                    faults.append(str(error))

    watcher = threading.Thread(target=watch)
    watcher.start()
    killed = left = 0
    started = time.monotonic()
    undisturbed = start_export(model, tmp_path)
    assert undisturbed.wait() == 0
    duration = time.monotonic() - started
    try:
        for round in range(25):
            processes = [start_export(model, tmp_path) for _ in range(2)]
            # TensorFlow starts for the first third; two at a time take longer than one alone.
            time.sleep(duration * (0.3 + 1.2 * round / 25))
            killed += sum(process.poll() is None for process in processes)
            for process in processes:
                process.kill()
                process.wait()
            left = max(left, len(list(tmp_path.glob("artifacts/*/.unfinished-*/version"))))
    finally:
        ended.set()
        watcher.join()
    export(model, tmp_path / "artifacts", dataclasses.replace(REQUEST, formats=("tflite",)))
    versions = {path.name for path in tmp_path.glob("artifacts/*/*")}
    measured(
        "50 exports, two at a time, killed under a watcher",
        f"{killed} killed, {len(versions)} versions, {len(faults)} refused by verify, at most {left} leftovers at once",
    )
    assert not faults
    assert killed >= 25
    assert left <= 4  # those of one round, and of the round before if no export began in between
    assert versions == {str(version) for version in range(1, len(versions) + 1)}


def test_a_gigabyte_needs_named_formats(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The estimated size counts every weight of every draw; beyond the limit the user must name formats."""
    monkeypatch.setattr(plan_module, "_MAX_BYTES", 1e3)
    with pytest.raises(UsageError, match=r"about 0\.0 GB with 8 draws in every format; name those .* --formats"):
        export(model, tmp_path, REQUEST)
    loaded, _ = store.load_model(model)
    bank = formats.select_graphs(("onnx",), ("float32", "float16"), ("draws",), ("draws",))
    drawn = sum(weight.mean().shape.num_elements() for weight in loaded.weights)
    fixed = sum(variable.shape.num_elements() for variable in loaded.network.get_layer("final").variables)
    assert bundle_writer.estimate_bytes(loaded, bank, 8) >= (4 + 2) * (8 * drawn + fixed)


def test_a_disk_that_does_not_take_it(model: Path, tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="nothing was published"):
        export(model, tmp_path / "artifacts", REQUEST)
