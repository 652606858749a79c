"""TensorFlow runs the SavedModel on the CPU or CUDA.

TensorFlow never sees the bundle's folder. The vetted bytes of `saved_model.pb` give the graph; of it each signature
gets the nodes and functions that it reaches, with the variables filled in as values. What a loader would run besides
(initializers, main operations, the object graph, saving) has no part in that.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import FileRecord
from probrt.runtime.bundle.vet_saved_model import vet_saved_model
from probrt.runtime.engines.graph import Arrays, Outputs, device_error, load_error
from probrt.runtime.errors import BundleError
from probrt.runtime.hush import hush

with hush():
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

GRAPH = "saved_model.pb"
VARIABLES = "variables/variables"
_DEVICES = {"cuda": "GPU", "cpu": "CPU"}


def version() -> str:
    return str(tf.__version__)


def devices() -> tuple[str, ...]:
    with hush():
        return tuple(name for name, kind in _DEVICES.items() if tf.config.list_physical_devices(kind))


class TensorFlow:
    """The graph of a SavedModel; `signature` names which of its outputs answer."""

    def __init__(
        self, meta_graph: Any, values: Mapping[str, npt.NDArray[np.generic]], device: str, threads: int
    ) -> None:
        self._meta_graph = meta_graph
        self._values = values
        self._device = f"/{_DEVICES[device]}:0"
        self._config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=threads, allow_soft_placement=True)
        self._sessions: dict[str, Any] = {}

    def __call__(self, inputs: Arrays, signature: str = "serving_default") -> Outputs:
        if signature not in self._meta_graph.signature_def:
            raise BundleError(f"{GRAPH}: has no signature {signature}; export the model again")
        record = self._meta_graph.signature_def[signature]
        if signature not in self._sessions:
            with hush():
                self._sessions[signature] = self._open_session(record)
        feeds = {record.inputs[name].name: values for name, values in inputs.items()}
        fetches = {name: output.name for name, output in record.outputs.items()}
        outputs: Outputs = self._sessions[signature].run(fetches, feeds)
        return outputs

    def _open_session(self, record: Any) -> Any:
        """Returns a session of the part of the graph that a signature reaches, its variables assigned."""
        graph_def = prune(self._meta_graph.graph_def, {_node_name(output.name) for output in record.outputs.values()})
        graph = tf.Graph()
        with graph.as_default(), tf.device(self._device):
            tf.graph_util.import_graph_def(graph_def, name="")
            assignments = [
                tf.raw_ops.AssignVariableOp(
                    resource=graph.get_tensor_by_name(f"{node.name}:0"), value=self._values[node.name]
                )
                for node in graph_def.node
                if node.op == "VarHandleOp"
            ]
        session = tf.compat.v1.Session(graph=graph, config=self._config)
        session.run(assignments)
        return session


def load(bundle: Bundle, files: Sequence[FileRecord], device: str, threads: int) -> TensorFlow:
    """Loads the bundle's SavedModel from bytes whose digests were checked."""
    if device not in devices():
        raise device_error("tensorflow", device, devices())
    by_path = {file.path: file for file in files}
    if GRAPH not in by_path:
        raise BundleError(f"{bundle.path / GRAPH}: not listed in the manifest; export the bundle again")
    content = bundle.read(by_path[GRAPH])
    vet_saved_model(content, GRAPH, bundle.manifest.ops)
    try:
        (meta_graph,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
        keys = find_variables(meta_graph)
    except Exception as error:  # a damaged graph fails in any part of TensorFlow, and of what reads it here
        raise load_error(by_path[GRAPH], error) from error
    return TensorFlow(meta_graph, _read_variables(bundle, by_path, keys), device, threads)


def _read_variables(
    bundle: Bundle, by_path: Mapping[str, FileRecord], keys: Mapping[str, str]
) -> dict[str, npt.NDArray[np.generic]]:
    """Reads the values of variables from a copy of the bundle's checkpoint: the files themselves may change."""
    if not keys:
        return {}
    files = [file for path, file in by_path.items() if path.startswith(f"{VARIABLES}.")]
    if not files:
        raise BundleError(f"{bundle.path / VARIABLES}.index: not listed in the manifest; export the bundle again")
    with tempfile.TemporaryDirectory() as folder:
        for file in files:
            target = Path(folder, file.path)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(bundle.read(file))
        try:
            reader = tf.train.load_checkpoint(str(Path(folder, VARIABLES)))
            return {handle: reader.get_tensor(key) for handle, key in keys.items()}
        except Exception as error:  # a damaged checkpoint fails in any part of TensorFlow
            raise load_error(files[0], error) from error


def prune(graph_def: Any, outputs: set[str]) -> Any:
    """Returns the nodes that some nodes depend on, themselves included, and the functions that those call."""
    nodes = {node.name: node for node in graph_def.node}
    reached: dict[str, None] = {}
    waiting = sorted(outputs)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached[name] = None
            waiting += [_node_name(source) for source in nodes[name].input]
    functions = {function.signature.name: function for function in graph_def.library.function}
    called: dict[str, None] = {}
    names = [function for name in reached for function in _called_functions(nodes[name])]
    while names:
        name = names.pop()
        if name not in called:
            called[name] = None
            names += [function for node in functions[name].node_def for function in _called_functions(node)]
    pruned = type(graph_def)(versions=graph_def.versions)
    pruned.node.extend(node for node in graph_def.node if node.name in reached)
    pruned.library.function.extend(function for name, function in functions.items() if name in called)
    return pruned


def find_variables(meta_graph: Any) -> dict[str, str]:
    """Returns the key in the checkpoint of each variable's handle, by the name of its node.

    The function that restores variables says which of the checkpoint's tensors belongs to which handle.
    """
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    if not any(node.op == "VarHandleOp" for node in nodes.values()):
        return {}
    call = nodes[meta_graph.saver_def.restore_op_name]
    name = call.attr["f"].func.name
    function = next(item for item in meta_graph.graph_def.library.function if item.signature.name == name)
    body = {node.name: node for node in function.node_def}
    handles = dict(zip((argument.name for argument in function.signature.input_arg), call.input, strict=True))
    keys = {}
    for node in function.node_def:
        if node.op != "AssignVariableOp":
            continue
        handle, source = node.input[:2]
        passed = set()
        while body[_node_name(source)].op != "RestoreV2":
            if source in passed:
                raise ValueError(f"its node {source} depends on itself")
            passed.add(source)
            source = body[_node_name(source)].input[0]
        restore = body[_node_name(source)]
        names = tf.make_ndarray(body[_node_name(restore.input[1])].attr["value"].tensor).ravel()
        keys[_node_name(handles[handle])] = names[int(source.rpartition(":")[2])].decode()
    return keys


def _called_functions(node: Any) -> list[str]:
    """Returns the functions that a node's attributes name."""
    names = []
    for attribute in node.attr.values():
        names += [function.name for function in (attribute.func, *attribute.list.func) if function.name]
    return names


def _node_name(tensor: str) -> str:
    return tensor.lstrip("^").partition(":")[0]
