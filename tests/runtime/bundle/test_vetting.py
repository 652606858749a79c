"""Forbidden graphs are refused by their bytes, with a message that names them, and without TensorFlow."""

import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.operations import ALLOWED
from probrt.runtime.bundle.protobuf import find_messages, read_fields, read_text
from probrt.runtime.bundle.vet_onnx import vet_onnx
from probrt.runtime.bundle.vet_saved_model import saved_model_ops, vet_saved_model
from probrt.runtime.bundle.vetting import vet
from probrt.runtime.errors import BundleError


def save_graph(folder: Path, function: Callable[..., Any]) -> bytes:
    """Returns the saved_model.pb of a model with one signature of `x`."""
    module = tf.Module()
    module.variable = tf.Variable(1.0)
    module.answer = tf.function(function, input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.answer})
    return (folder / "saved_model.pb").read_bytes()


def test_a_real_bundle_is_clean(bundle: Bundle) -> None:
    for file in bundle.manifest.files:
        vet(bundle, file)
    graph = (bundle.path / "saved_model.pb").read_bytes()
    ops = saved_model_ops(graph)
    assert {"Conv2D", "StatelessWhile"} <= {*ops} <= ALLOWED
    vet_saved_model(graph, "graph", ops)
    with pytest.raises(BundleError, match=r"graph: holds Conv2D \(in .*\), which a bundle may not"):
        vet_saved_model(graph, "graph", [op for op in ops if op != "Conv2D"])
    with pytest.raises(BundleError, match="its manifest allows ReadFile, WriteFile, which probrt does not"):
        vet_saved_model(graph, "graph", [*ops, "WriteFile", "ReadFile"])


def read_a_file(x: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"y": x + tf.strings.to_number(tf.io.read_file("/etc/hostname"))}


def call_in_a_branch(x: tf.Tensor) -> dict[str, tf.Tensor]:
    """The operation lies in a branch inside the body of a loop; both are functions of the graph."""

    def body(i: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return i + 1, tf.cond(i > 5, lambda: y + tf.cast(tf.timestamp(), tf.float32), lambda: y)

    return {"y": tf.while_loop(lambda i, y: i < 10, body, (0, x))[1]}


def call_python(x: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"y": tf.py_function(lambda v: v, [x], tf.float32)}


@pytest.mark.parametrize(
    ("function", "op"),
    [(read_a_file, "ReadFile"), (call_in_a_branch, "Timestamp"), (call_python, "EagerPyFunc")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_foreign_operations_are_refused_wherever_they_are(tmp_path: Path, function: Any, op: str) -> None:
    with pytest.raises(BundleError, match=f"saved_model.pb: holds .*{op}.*, which a bundle may not"):
        vet_saved_model(save_graph(tmp_path, function), "saved_model.pb")


def test_a_signature_may_not_write(tmp_path: Path) -> None:
    """SaveV2 is in every SavedModel, but no signature may reach it."""
    clean = save_graph(tmp_path / "clean", lambda x: {"y": 2.0 * x})
    assert "SaveV2" in saved_model_ops(clean)
    vet_saved_model(clean, "saved_model.pb")

    def write_a_file(x: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.control_dependencies(
            [tf.raw_ops.SaveV2(prefix="/tmp/x", tensor_names=["a"], shape_and_slices=[""], tensors=[x])]
        ):
            return {"y": tf.identity(x)}

    with pytest.raises(BundleError, match="holds SaveV2 outside of what the loader calls"):
        vet_saved_model(save_graph(tmp_path / "writing", write_a_file), "saved_model.pb")


def test_a_name_is_given_once() -> None:
    """Parsers differ in which of two they take."""
    node = b"\x12\x05Const" + b"\x12\x08ReadFile"
    graph = b"\x0a" + bytes([len(node)]) + node
    meta = b"\x12" + bytes([len(graph)]) + graph
    with pytest.raises(BundleError, match=r"field 2 of tensorflow\.NodeDef is given twice"):
        vet_saved_model(b"\x12" + bytes([len(meta)]) + meta, "saved_model.pb")


def encode_onnx(nodes: list[Any], initializers: list[Any]) -> bytes:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "graph", [value("x", TensorProto.FLOAT, [2])], [value("y", TensorProto.FLOAT, [2])], initializers
    )
    return helper.make_model(graph).SerializeToString()


def test_onnx_files_hold_their_own_tensors_and_known_operations() -> None:
    own = numpy_helper.from_array(np.ones(2, np.float32), "w")
    add = helper.make_node("Add", ["x", "w"], ["y"])
    vet_onnx(encode_onnx([add], [own]), "mean.onnx")
    elsewhere = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    elsewhere.external_data.add(key="location", value="../../etc/passwd")
    with pytest.raises(BundleError, match=r"mean\.onnx: its tensor w lies in another file"):
        vet_onnx(encode_onnx([add], [elsewhere]), "mean.onnx")
    constant = helper.make_node("Constant", [], ["y"], value=elsewhere)
    branch = helper.make_graph([constant], "branch", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])])
    nested = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    with pytest.raises(BundleError, match="lies in another file"):
        vet_onnx(encode_onnx([nested], []), "mean.onnx")
    with pytest.raises(BundleError, match=r"holds Run of domain evil\.com"):
        vet_onnx(encode_onnx([helper.make_node("Run", ["x"], ["y"], domain="evil.com")], []), "mean.onnx")


def test_no_framework_is_needed(bundle: Bundle) -> None:
    code = (
        "import sys; from probrt.runtime.cli import call; code = call(['verify', sys.argv[1]]); "
        "sys.exit(code or bool({'tensorflow', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code, bundle.path], check=True, capture_output=True)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_read_or_refused(content: bytes) -> None:
    for check in (vet_onnx, vet_saved_model):
        with contextlib.suppress(BundleError):
            check(content, "file")


def test_the_reader_agrees_with_a_real_parser() -> None:
    model = onnx.load_from_string(encode_onnx([helper.make_node("Neg", ["x"], ["y"], "name")], []))
    message = memoryview(model.SerializeToString())
    assert [field for field, _ in read_fields(message)] == [field.number for field, _ in model.ListFields()]
    assert [read_text(node, 4) for node in find_messages(message, 7, 1)] == ["Neg"]
