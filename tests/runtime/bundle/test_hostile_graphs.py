"""Graphs that do more than compute, hidden where one parser looks and another does not: refused by their bytes."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from onnx import TensorProto, helper, numpy_helper
from tensorflow.core.protobuf import saved_model_pb2

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.protobuf import check_message
from probrt.runtime.bundle.protobuf_schemas import ONNX, SAVED_MODEL
from probrt.runtime.bundle.vet_onnx import vet_onnx
from probrt.runtime.bundle.vet_saved_model import vet_saved_model
from probrt.runtime.bundle.vetting import vet
from probrt.runtime.errors import BundleError
from probrt.runtime.predict.predictor import load_predictor
from probrt.runtime.predict.trial import trust_files


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A SavedModel of one signature and one variable."""
    folder = tmp_path_factory.mktemp("clean")
    module = tf.Module()
    module.variable = tf.Variable([2.0])
    function = tf.function(
        lambda x: {"y": x * module.variable}, input_signature=[tf.TensorSpec([None], tf.float32, name="x")]
    )
    tf.saved_model.save(module, str(folder), signatures={"serving_default": function})
    content = (folder / "saved_model.pb").read_bytes()
    vet_saved_model(content, "saved_model.pb")
    return saved_model_pb2.SavedModel.FromString(content)


def copy(saved: Any) -> tuple[Any, Any]:
    """Returns a copy and its meta graph."""
    other = saved_model_pb2.SavedModel()
    other.CopyFrom(saved)
    return other, other.meta_graphs[0]


def add_write(graph: Any, name: str = "write") -> None:
    """Adds nodes that write a file to a graph (or the body of a function)."""
    for constant, value in (("name", b"/tmp/written"), ("content", b"x")):
        node = graph.add(name=f"{name}/{constant}", op="Const")
        node.attr["dtype"].type = tf.string.as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    graph.add(name=name, op="WriteFile", input=[f"{name}/name", f"{name}/content"])


def refused(saved: Any, reason: str) -> None:
    content = saved if isinstance(saved, bytes) else saved.SerializeToString()
    with pytest.raises(BundleError, match=reason):
        vet_saved_model(content, "saved_model.pb")


def test_a_main_operation_must_do_nothing(clean: Any) -> None:
    saved, meta_graph = copy(clean)
    meta_graph.graph_def.node.add(name="init", op="VarIsInitializedOp")
    meta_graph.collection_def["saved_model_main_op"].node_list.value[:] = ["init"]
    refused(saved, "runs init when it is loaded")
    saved, meta_graph = copy(clean)
    meta_graph.collection_def["saved_model_main_op"].node_list.value[:] = ["NoOp"]
    next(node for node in meta_graph.graph_def.node if node.name == "NoOp").input.append("^ReadVariableOp")
    meta_graph.graph_def.node.add(name="ReadVariableOp", op="NoOp")
    refused(saved, "runs NoOp when it is loaded")
    saved, meta_graph = copy(clean)
    meta_graph.collection_def["saved_model_assets"].any_list.value.add()
    refused(saved, "collection saved_model_assets")


def test_an_initializer_signature_must_do_nothing(clean: Any) -> None:
    saved, meta_graph = copy(clean)
    node = next(node.name for node in meta_graph.graph_def.node if node.op == "StatefulPartitionedCall")
    meta_graph.signature_def["__saved_model_init_op"].outputs["__saved_model_init_op"].name = f"{node}:0"
    refused(saved, f"runs {node}:0 when it is loaded")


def test_the_object_graph_holds_no_resource_that_a_loader_initializes(clean: Any) -> None:
    for kind in ("resource", "asset", "registered_name"):
        saved, meta_graph = copy(clean)
        added = meta_graph.object_graph_def.nodes.add()
        if kind == "registered_name":
            added.registered_name = "Custom>Thing"
        else:
            getattr(added, kind).SetInParent()
        refused(saved, "its object graph holds")


def test_a_function_has_one_signature(clean: Any) -> None:
    """A second signature renames the function for the parser that merges, not for the one that takes the first."""
    saved, meta_graph = copy(clean)
    library = meta_graph.graph_def.library
    body = library.function[0].SerializeToString()
    second = library.function[1].signature.SerializeToString()
    doubled = body + b"\x0a" + encoded(len(second)) + second
    refused(splice(saved, body, doubled), "field 1 of tensorflow.FunctionDef is given twice")


def test_a_graph_in_two_pieces_is_refused(clean: Any) -> None:
    """A parser joins both; the write is in the second."""
    saved, meta_graph = copy(clean)
    piece = type(meta_graph)()
    add_write(piece.graph_def.node)
    meta_graph_bytes = meta_graph.SerializeToString()
    joined = meta_graph_bytes + piece.SerializeToString()
    refused(splice(saved, meta_graph_bytes, joined), "field 2 of tensorflow.MetaGraphDef is given twice")


def test_a_tag_has_no_bits_to_spare(clean: Any) -> None:
    """Five bytes whose upper bits one parser drops are another field for the other."""
    content = clean.SerializeToString()
    for tag in (b"\x92\x80\x80\x80\x10", b"\x92\x80\x80\x80\x00", b"\x92\x00"):
        refused(content + tag + b"\x00", "protocol buffer")


def test_unknown_fields_are_refused(clean: Any) -> None:
    refused(clean.SerializeToString() + b"\xfa\x07\x01x", "field 127 of tensorflow.SavedModel is unknown")


def test_a_key_left_out_is_the_key_zero() -> None:
    """Both name the same entry of a map, of which one parser keeps the first and another the last."""
    schema = {"Map": {1: "Entry@"}, "Entry": {1: "varint", 2: "varint"}}
    left_out, zero, one = b"\x10\x01", b"\x08\x00\x10\x02", b"\x08\x01\x10\x02"

    def make_map(*entries: bytes) -> memoryview:
        return memoryview(b"".join(b"\x0a" + encoded(len(entry)) + entry for entry in entries))

    check_message(make_map(left_out, one), "Map", schema)
    with pytest.raises(BundleError, match="field 1 of Map has a key twice"):
        check_message(make_map(left_out, zero), "Map", schema)


def splice(saved: Any, part: bytes, replacement: bytes) -> bytes:
    """Returns the bytes of a SavedModel with one nested message exchanged, every length around it mended."""
    content = saved.SerializeToString()
    assert content.count(part) == 1

    def mend(message: bytes) -> bytes | None:
        place = 0
        while place < len(message):
            start = place
            key, place = varint(message, place)
            if key & 7 != 2:
                size = {0: None, 1: 8, 5: 4}[key & 7]
                place = varint(message, place)[1] if size is None else place + size
                continue
            length, place = varint(message, place)
            body = message[place : place + length]
            if part in body:
                changed = replacement if body == part else mend(body)
                return message[:start] + encoded(key) + encoded(len(changed)) + changed + message[place + length :]
            place += length
        return None

    return mend(content)


def varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place


def encoded(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def save_to_fixed_path(meta_graph: Any) -> None:
    """Lets the restore function read a path of the graph's own instead of the loader's."""
    for function in meta_graph.graph_def.library.function:
        for node in function.node_def:
            if node.op == "RestoreV2":
                constant = function.node_def.add(name="elsewhere", op="Const")
                constant.attr["dtype"].type = tf.string.as_datatype_enum
                constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(b"/etc/elsewhere"))
                node.input[0] = "elsewhere:output:0"


def save_in_signature(meta_graph: Any) -> None:
    """Lets a signature's function call the function that saves."""
    saver = next(node for node in meta_graph.graph_def.node if node.name == meta_graph.saver_def.save_tensor_name[:-2])
    wrapper = next(f for f in meta_graph.graph_def.library.function if "signature_wrapper" in f.signature.name)
    call = wrapper.node_def.add(name="save", op="StatefulPartitionedCall")
    call.attr["f"].func.name = saver.attr["f"].func.name


def save_behind_a_dependency(meta_graph: Any) -> None:
    """Lets a signature's node wait for the call that saves."""
    name = meta_graph.saver_def.save_tensor_name.partition(":")[0]
    output = meta_graph.signature_def["serving_default"].outputs["y"].name.partition(":")[0]
    next(node for node in meta_graph.graph_def.node if node.name == output).input.append(f"^{name}")


def save_as_output(meta_graph: Any) -> None:
    """Names the call that saves as a signature's output."""
    meta_graph.signature_def["serving_default"].outputs["z"].name = meta_graph.saver_def.save_tensor_name


def save_from_placeholder_with_default(meta_graph: Any) -> None:
    """Gives the loader's path a value of its own."""
    name = meta_graph.saver_def.filename_tensor_name.partition(":")[0]
    node = next(node for node in meta_graph.graph_def.node if node.name == name)
    node.op = "PlaceholderWithDefault"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (save_to_fixed_path, "RestoreV2 takes a path that is not the loader's"),
        (save_in_signature, "save calls what saves and restores"),
        (save_behind_a_dependency, "depends on what saves and restores"),
        (save_as_output, "its signature serving_default saves or restores"),
        (save_from_placeholder_with_default, "which is no placeholder"),
    ],
)
def test_saving_stays_with_the_loader(clean: Any, change: Callable[[Any], None], reason: str) -> None:
    saved, meta_graph = copy(clean)
    change(meta_graph)
    refused(saved, reason)


def test_an_operation_hidden_by_a_function_s_name_is_refused(clean: Any) -> None:
    saved, meta_graph = copy(clean)
    function = meta_graph.graph_def.library.function.add()
    function.signature.name = "WriteFile"
    add_write(meta_graph.graph_def.node)
    refused(saved, "WriteFile")


def onnx_model(**changes: Any) -> Any:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])],
        "graph",
        [value("x", TensorProto.FLOAT, [2])],
        [value("y", TensorProto.FLOAT, [2])],
    )
    return helper.make_model(graph, **changes)


def elsewhere() -> Any:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="secret.bin")
    return tensor


def test_onnx_tensors_are_looked_at_wherever_they_stand() -> None:
    vet_onnx(onnx_model().SerializeToString(), "mean.onnx")
    attribute = helper.make_attribute("value", numpy_helper.from_array(np.ones(2, np.float32)))
    attribute.t.CopyFrom(elsewhere())
    function = helper.make_function(
        "local", "F", ["x"], ["y"], [helper.make_node("Neg", ["x"], ["y"])], [helper.make_opsetid("", 18)], []
    )
    function.attribute_proto.append(attribute)
    with pytest.raises(BundleError, match="its tensor w lies in another file"):
        vet_onnx(onnx_model(functions=[function]).SerializeToString(), "mean.onnx")
    hidden = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2])
    raw = hidden.SerializeToString() + b"\xf0\x80\x80\x80\x80\x01\x01"  # data_location behind a tag that is too long
    model = onnx_model()
    graph = model.graph.SerializeToString() + b"\x2a" + encoded(len(raw)) + raw
    content = b"\x3a" + encoded(len(graph)) + graph
    with pytest.raises(BundleError, match="protocol buffer"):
        vet_onnx(content, "mean.onnx")


def test_the_tables_of_messages_are_those_of_the_frameworks() -> None:
    """After a new version of TensorFlow or ONNX: python docs/write_protobuf_schemas.py."""
    script = Path(__file__).parents[3] / "docs" / "write_protobuf_schemas.py"
    schemas = runpy.run_path(str(script))["read_schemas"]()
    assert schemas == {"SAVED_MODEL": SAVED_MODEL, "ONNX": ONNX}


@pytest.mark.parametrize("wrong", ["main_operation", "initializer"])
def test_what_a_loader_would_run_has_no_part_in_a_prediction(
    bundle: Bundle, rewrite: Callable[..., Bundle], tmp_path: Path, wrong: str
) -> None:
    """Neither `verify` nor `predict` lets it pass, though every digest is right, and nothing is written."""
    folder = tmp_path / "shapes" / "1"
    shutil.copytree(bundle.path, folder)
    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    meta_graph, target = saved.meta_graphs[0], tmp_path / "written"
    add_write(meta_graph.graph_def.node)
    next(node for node in meta_graph.graph_def.node if node.name == "write/name").attr["value"].tensor.CopyFrom(
        tf.make_tensor_proto(str(target).encode())
    )
    if wrong == "main_operation":
        del meta_graph.signature_def["__saved_model_init_op"]
        meta_graph.collection_def["saved_model_main_op"].node_list.value[:] = ["write"]
    else:
        meta_graph.signature_def["__saved_model_init_op"].outputs["__saved_model_init_op"].name = "write"
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())
    changed = rewrite(folder)
    trust_files(changed)  # so that the engine itself refuses it, not a trial
    with tf.compat.v1.Session(graph=tf.Graph()) as session:  # a plain loader runs it
        tf.compat.v1.saved_model.load(session, ["serve"], str(folder))
    assert target.exists()
    target.unlink()
    for load in (
        lambda: load_predictor(changed, engine="tensorflow")(np.zeros((1, 12, 12, 1), np.float32)),
        lambda: [vet(changed, file) for file in changed.manifest.files],
    ):
        with pytest.raises(BundleError, match="WriteFile"):
            load()
    assert not target.exists()
