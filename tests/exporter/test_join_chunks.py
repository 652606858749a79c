"""One ONNX file in place of the chunks of a bank."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from exported_cases import ExportedCase

from probrt.exporter.export import export
from probrt.exporter.join_chunks import choose_files, join_chunks
from probrt.exporter.onnx_merge import GraphMerger
from probrt.exporter.plan import ExportRequest
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.engines.onnxruntime import OnnxRuntime
from probrt.runtime.errors import ParityError, UsageError
from probrt.runtime.predict.predictor import load_predictor


def export_bank(bundle: ExportedCase, folder: Path) -> Bundle:
    model = bundle.bundle.path.parents[2] / "model"
    request = ExportRequest(draws=16, formats=("onnx",), variants=("draws",), select=False)
    return export(model, folder, request).bundle


@pytest.mark.parametrize("case", ["heads_of_features"], indirect=True)
def test_every_output_equals_that_of_predict(bundle: ExportedCase, tmp_path: Path) -> None:
    bank = export_bank(bundle, tmp_path)
    content = join_chunks(bank)
    images = bundle.images
    expected = load_predictor(bank, engine="onnxruntime")(images)
    answer = OnnxRuntime(content, "CPUExecutionProvider", 1)({"images": images})
    for head, values in expected.heads.items():
        for quantity, want in values.quantities.items():
            # Sums in another order, in float32 where `predict` adds up in float64.
            scale = max(1.0, float(np.abs(want).max()))
            np.testing.assert_allclose(answer[f"{head}.{quantity}"] / scale, want / scale, atol=1e-5, err_msg=quantity)
    joined, *chunks = (len(onnx.load_from_string(file).graph.node) for file in (content, *read_chunks(bank)))
    assert joined < sum(chunks) + 40 * len(answer)
    with pytest.raises(UsageError, match="no float32 ONNX file"):
        join_chunks(Bundle(bank.path, msgspec.structs.replace(bank.manifest, files=[])))


def read_chunks(bank: Bundle) -> list[bytes]:
    return [bank.read(file) for file in choose_files(bank)]


@pytest.mark.parametrize("case", ["digits"], indirect=True)
def test_a_join_that_answers_otherwise_is_refused(
    bundle: ExportedCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = export_bank(bundle, tmp_path)
    add = GraphMerger.add_node

    def add_wrong(merger: GraphMerger, operation: str, *inputs: object, **attributes: int) -> str:
        return add(merger, "Add" if operation == "Sub" else operation, *inputs, **attributes)  # type: ignore[arg-type]

    monkeypatch.setattr(GraphMerger, "add_node", add_wrong)
    with pytest.raises(ParityError, match=r"the joined model's \w+\.\w+ differs by"):
        join_chunks(bank)


def test_equal_computations_are_there_once() -> None:
    """The features that two graphs share are merged, and what differs by a constant is not."""

    def make(factor: float) -> onnx.ModelProto:
        return onnx.parser.parse_model(f"""
            <ir_version: 8, opset_import: ["" : 18]>
            g (float[N, 2] images) => (float[N, 2] y) <float two = {{2.0}}, float own = {{{factor}}}> {{
                shared = Mul(images, two)
                more = Relu(shared)
                y = Mul(more, own)
            }}""")

    merger = GraphMerger("joined")
    first, second, third = (merger.add(make(factor))["y"] for factor in (3.0, 4.0, 3.0))
    assert first == third
    model = merger.finish({"y": merger.add_node("Add", first, second)})
    assert [node.op_type for node in model.graph.node] == ["Mul", "Relu", "Mul", "Mul", "Add", "Identity"]
    answer = OnnxRuntime(model.SerializeToString(), "CPUExecutionProvider", 1)(
        {"images": np.array([[1, -1]], np.float32)}
    )
    np.testing.assert_array_equal(answer["y"], [[14, 0]])
