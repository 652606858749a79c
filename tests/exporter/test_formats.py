"""The table of formats: the options, the page, and what each precision owes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from cases import DIGIT, SLANT, layered

from probrt.exporter.constants import freeze_variables
from probrt.exporter.export import export
from probrt.exporter.formats import FORMATS, PRECISIONS, VARIANTS, PrecisionSpec, parse_names, select_graphs
from probrt.exporter.graphs import compile_function
from probrt.exporter.plan import ExportRequest
from probrt.exporter.reference import Reference
from probrt.exporter.task_metrics import TaskExamples
from probrt.exporter.tflite_convert import convert_to_tflite
from probrt.exporter.tflite_float16 import store_weights_in_float16
from probrt.runtime.engines import BUILT_IN
from probrt.runtime.errors import UsageError
from probrt.runtime.predict.predictor import load_predictor
from probrt.trainer import layers, store


def test_lists_come_in_the_order_of_the_table() -> None:
    assert parse_names("onnx, savedmodel", FORMATS, "--formats") == ("savedmodel", "onnx")
    with pytest.raises(UsageError, match="--formats tflight: choose from savedmodel, tflite, onnx"):
        parse_names("tflight", FORMATS, "--formats")
    with pytest.raises(UsageError, match="choose from"):
        parse_names(",", FORMATS, "--formats")


def test_files_of_a_request() -> None:
    names = {graph.file_name(0 if graph.variant == "draws" else None) for graph in select_graphs(
        FORMATS, ("float32", "float16", "int8"), VARIANTS, VARIANTS)}  # fmt: skip
    stems = ("mean", "mean.fp16", "mean.int8", "draws-00", "draws-00.fp16", "draws-00.int8", "sampled")
    assert names == {f"{stem}.{format}" for stem in stems for format in ("tflite", "onnx")}
    with pytest.raises(UsageError, match="nothing to write; this model has mean, draws"):
        select_graphs(("onnx",), ("dynamic",), ("draws",), ("mean", "draws"))


@pytest.mark.parametrize("precision", PRECISIONS, ids=lambda precision: precision.name)
def test_the_page_has_the_table(root: Path, precision: PrecisionSpec) -> None:
    line = next(
        line for line in (root / "docs/export.md").read_text().splitlines() if line.startswith(f"| `{precision.name}`")
    )
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1].split(", ") == list(precision.variants)
    assert cells[2] == ", ".join(f"`{precision.suffix}.{format}`" for format in ("tflite", "onnx"))
    assert [float(cell) for cell in cells[3:6]] == [precision.tolerance, precision.least_ranking, precision.task_loss]
    assert cells[6] == precision.meaning


def test_half_precision_leaves_small_constants_alone() -> None:
    """1e-30 keeps 0 log 0 finite; as a half it would be 0, and the answer NaN."""
    weight = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)

    def answer(images: tf.Tensor) -> dict[str, tf.Tensor]:
        p = tf.nn.relu(tf.matmul(images, tf.constant(weight)))
        return {"a.total": -p * tf.math.log(tf.maximum(p, 1e-30))}

    spec = [tf.TensorSpec([None, 32], tf.float32, name="images")]
    function = freeze_variables(compile_function(answer, spec))
    whole = convert_to_tflite(function, "mean.tflite")
    half = store_weights_in_float16(whole)
    assert len(half) < len(whole) - 1500  # 1024 weights of two bytes less, and one operator more
    images = np.random.default_rng(1).normal(size=(5, 32)).astype(np.float32)
    answers = [
        Interpreter(model_content=content).get_signature_runner("serving_default")(images=images)["a.total"]
        for content in (whole, half)
    ]
    assert (answers[0] == 0).any()
    # 32 products of weights that are right to 2^-11, under a function whose slope is 4 at the most here.
    np.testing.assert_allclose(answers[1], answers[0], atol=32 * 2.0**-11 * 4)


def test_a_file_that_is_worse_at_the_task_is_refused() -> None:
    """One wrong answer of ten is 0.1 of an accuracy of 1; a tenth more error is 0.1 of it."""
    truth = np.arange(10, dtype=np.int32) % 3
    rising = np.arange(10, dtype=np.float32)[:, None]
    task = TaskExamples(np.zeros((10, 4), np.float32), {"digit": truth, "slant": rising})
    model = {"digit.mean": np.eye(3, dtype=np.float32)[truth], "slant.mean": rising + 1.0}
    wrong = truth.copy()
    wrong[4] = 2 - truth[4] if truth[4] != 1 else 0
    file = {"digit.mean": np.eye(3, dtype=np.float32)[wrong], "slant.mean": rising + 1.1}
    records, faults = task.compare_metrics([DIGIT, SLANT], "mean.int8.onnx", file, model, 0.05)
    assert faults == [
        "digit accuracy is 0.9 on 10 training images, the model's 1",
        "slant MAE is 1.1 on 10 training images, the model's 1",
    ]
    assert [record.label for record in records] == ["digit accuracy", "slant MAE"]
    assert not task.compare_metrics([DIGIT, SLANT], "mean.int8.onnx", file, model, 0.11)[1]
    assert not task.compare_metrics([DIGIT, SLANT], "mean.int8.onnx", model, file, 0.01)[1]  # better is no fault


def test_a_model_without_random_weights(tmp_path: Path) -> None:
    """It has one pass: every engine runs it, and the SavedModel has no signature that samples."""
    model = layered(
        "plain",
        [6],
        [DIGIT, SLANT],
        layers.Dense(5, kernel_posterior=None, activation="relu", name="body"),
        lambda filters: layers.Dense(filters, kernel_posterior=None, name="final"),
    )
    images = np.random.default_rng(0).uniform(-1, 1, (8, 6)).astype(np.float32)
    store.save_model(model, tmp_path / "model", images=images, provenance={})
    result = export(tmp_path / "model", tmp_path, ExportRequest())
    assert result.bundle.manifest.posterior is None
    names = {file.path for file in result.bundle.manifest.files if file.format != "savedmodel"}
    assert names == {"mean.tflite", "mean.onnx"}
    expected = Reference(model, result.bundle.manifest.heads).evaluate_mean(images)
    for engine in BUILT_IN:
        answer = load_predictor(result.bundle, engine=engine.name)(images)
        np.testing.assert_allclose(answer["slant"].mean, expected["slant.mean"], atol=1e-5)
    assert {record.signature for record in result.bundle.manifest.parity if record.file == "saved_model.pb"} == {"mean"}
