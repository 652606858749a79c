"""Bundles and model directories that earlier versions wrote are read, and answer as they did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from golden.write import REQUESTS

from probrt.exporter.export import export
from probrt.exporter.plan import ExportRequest
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import FORMAT
from probrt.runtime.errors import UsageError
from probrt.runtime.predict.predictor import load_predictor
from probrt.trainer import store

GOLDEN = Path(__file__).parent / "golden"
FORMATS = sorted(path.name for path in GOLDEN.glob("format-*"))
# Float32 sums in another order, on outputs near 1; LiteRT itself gives the same bytes.
ROUNDING = 1e-5

every_format = pytest.mark.parametrize("format", FORMATS)


def test_the_current_format_has_golden_files() -> None:
    assert f"format-{FORMAT}" in FORMATS


@every_format
@pytest.mark.parametrize("engine", ["litert", "onnxruntime", "openvino", "tensorflow"])
@pytest.mark.parametrize("request_name", REQUESTS)
def test_a_bundle_answers_as_it_did(format: str, engine: str, request_name: str) -> None:
    bundle = Bundle.open(GOLDEN / format / "bundle")
    if engine == "openvino" and request_name == "seed":
        with pytest.raises(UsageError, match="computes no 32-bit words"):
            load_predictor(bundle, engine=engine, **REQUESTS[request_name])
        return
    with np.load(GOLDEN / format / "answers.npz") as answers:
        prediction = load_predictor(bundle, engine=engine, **REQUESTS[request_name])(answers["images"])
        expected = {name: answers[name] for name in answers.files if name.startswith(f"{request_name}/")}
    given = {
        f"{request_name}/{head}.{quantity}": values
        for head, answer in prediction.heads.items()
        for quantity, values in answer.quantities.items()
    }
    assert given.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(given[name], values, rtol=0, atol=ROUNDING, err_msg=name)


@every_format
def test_a_bundle_is_verified_and_inspected(format: str, called: Callable[..., Any], tmp_path: Path) -> None:
    for command in ("verify", "inspect"):
        done = called(command, GOLDEN / format / "bundle", cwd=tmp_path)
        assert done.code == 0, done.err


@every_format
def test_a_model_exports_the_graphs_that_it_did(format: str, tmp_path: Path) -> None:
    """The same operations and names in every TFLite file, and the same weights but for rounding.

    Weights of a draw are computed at export: another processor may round its exponentials otherwise.
    """
    # Keras numbers unnamed layers through the process, and the numbers are part of the names in a graph.
    keras.utils.clear_session(free_memory=False)
    model, _ = store.load_model(GOLDEN / format / "model")
    assert [head.name for head in model.heads] == ["digit", "slant", "ink"]
    request = ExportRequest(draws=16, formats=("tflite",), select=False)
    exported = export(GOLDEN / format / "model", tmp_path, request).bundle
    for file in exported.manifest.files:
        ours, theirs = (read_tflite(folder / file.path) for folder in (exported.path, GOLDEN / format / "bundle"))
        assert operations(ours) == operations(theirs), file.path
        for mine, golden in zip(ours.subgraphs[0].tensors, theirs.subgraphs[0].tensors, strict=True):
            assert (mine.name, mine.type, list(mine.shape)) == (golden.name, golden.type, list(golden.shape))
            if mine.type == schema.TensorType.FLOAT32:
                np.testing.assert_allclose(
                    constant(ours, mine), constant(theirs, golden), rtol=1e-5, atol=1e-6, err_msg=str(mine.name)
                )


def read_tflite(path: Path) -> Any:
    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(path.read_bytes(), 0))


def operations(model: Any) -> list[tuple[int, list[int], list[int]]]:
    """Each operation's code, inputs and outputs, in order."""
    return [
        (model.operatorCodes[operator.opcodeIndex].builtinCode, list(operator.inputs), list(operator.outputs))
        for operator in model.subgraphs[0].operators
    ]


def constant(model: Any, tensor: Any) -> np.ndarray:
    data = model.buffers[tensor.buffer].data
    return np.frombuffer(b"" if data is None else bytes(data), np.float32)
