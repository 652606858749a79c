"""The standard metadata of TFLite files, which the readers of LiteRT, TFLite Support and MediaPipe show.

It is a FlatBuffer of the schema `metadata_schema.fbs` (TFLite Support), in a file's metadata entry TFLITE_METADATA. It
names and describes each input and output, and says how pixels become the input and which file holds the labels. The
files of labels lie in a zip behind the model. The numbers below are the places of the fields in the schema.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import Any

from probrt.exporter.flatbuffer import Byte, Floats, Table, Value, Word, write_flatbuffer
from probrt.runtime.bundle.manifest import NOVELTY, HeadRecord, Input

NAME = "TFLITE_METADATA"
IDENTIFIER = b"M001"
# The first version of the readers that knows all fields that are used here.
MIN_PARSER_VERSION = "1.0.0"

_MODEL_NAME, _MODEL_DESCRIPTION, _MODEL_SUBGRAPHS, _MODEL_PARSER = 0, 1, 3, 7
_GRAPH_INPUTS, _GRAPH_OUTPUTS = 2, 3
_TENSOR_NAME, _TENSOR_DESCRIPTION, _TENSOR_CONTENT, _TENSOR_STEPS, _TENSOR_STATS, _TENSOR_FILES = 0, 1, 3, 4, 5, 6
_AXIS_LABELS = Byte(2)
# Content whose union holds FeatureProperties, numbers of any kind.
_PLAIN_CONTENT: Table = {0: Byte(1), 1: {}}
_COLOURS = {"rgb": Byte(1), "grey": Byte(2)}

_UNCERTAINTIES = {
    "total": "total uncertainty",
    "aleatoric": "uncertainty that comes from the data",
    "epistemic": "uncertainty that comes from the weights",
}
_MEANS = {"class": "probability of each class", "binary": "probability of yes", "real": "expected value"}
_OTHERS = {
    "seed": "seed of the draws",
    "start": "position of the first draw",
    f"{NOVELTY}.score": "how far the image lies from the training images",
    f"{NOVELTY}.p_value": "p-value of the novelty: the share of calibration images at least as far; small is unknown",
    f"{NOVELTY}.map": "novelty of each position",
}


def write_metadata(content: bytes, *, name: str, description: str, input: Input, heads: Sequence[HeadRecord]) -> bytes:
    """Returns the FlatBuffer for a TFLite file. name, description: of the model."""
    inputs, outputs = _list_tensors(content)
    records = {head.name: head for head in heads}
    graph: Table = {
        _GRAPH_INPUTS: [
            _describe_images(input) if tensor == "images" else _describe_other(tensor) for tensor in inputs
        ],
        _GRAPH_OUTPUTS: [_describe_output(tensor, records) for tensor in outputs],
    }
    root: Table = {
        _MODEL_NAME: name,
        _MODEL_DESCRIPTION: description,
        _MODEL_SUBGRAPHS: [graph],
        _MODEL_PARSER: MIN_PARSER_VERSION,
    }
    return write_flatbuffer(root, IDENTIFIER)


def append_labels(content: bytes, heads: Sequence[HeadRecord]) -> bytes:
    """Returns the file with a zip behind it: a text file per head of labels, one per line. The same bytes each time."""
    labelled = [head for head in heads if head.labels]
    if not labelled:
        return content
    stream = io.BytesIO(content)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:
        for head in labelled:
            entry = zipfile.ZipInfo(_labels_file(head), (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # by default that of the machine
            archive.writestr(entry, "".join(f"{' '.join(label.split())}\n" for label in head.labels))
    return stream.getvalue()


def _list_tensors(content: bytes) -> tuple[list[str], list[str]]:
    """Returns the names of the inputs and outputs by the file's signature, in the order of the graph."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAsModel(content, 0)
    signature = model.SignatureDefs(0)
    graph = model.Subgraphs(signature.SubgraphIndex())
    inputs = [signature.Inputs(index) for index in range(signature.InputsLength())]
    outputs = [signature.Outputs(index) for index in range(signature.OutputsLength())]

    def order(entries: list[Any], tensors: Sequence[int]) -> list[str]:
        waiting = sorted(((int(entry.TensorIndex()), entry.Name().decode()) for entry in entries), reverse=True)
        names: dict[int, list[str]] = {}
        for tensor, name in waiting:  # one tensor may be several outputs
            names.setdefault(tensor, []).append(name)
        return [names[int(tensor)].pop() for tensor in tensors]

    return order(inputs, graph.InputsAsNumpy()), order(outputs, graph.OutputsAsNumpy())


def _describe_images(input: Input) -> Table:
    """The raw values of images. A reader that scales pixels (0 to 255) by mean and deviation makes raw values."""
    span = "" if input.range is None else f", from {input.range[0]:g} to {input.range[1]:g}"
    table: dict[int, Value] = {
        _TENSOR_NAME: "images",
        _TENSOR_DESCRIPTION: f"raw values{span}{f' {input.unit}' if input.unit else ''}; scaling is in the graph",
        _TENSOR_CONTENT: _PLAIN_CONTENT,
    }
    if input.range is not None:
        table[_TENSOR_STATS] = {0: Floats((input.range[1],)), 1: Floats((input.range[0],))}
    if input.colour in _COLOURS and len(input.shape) == 3:
        properties: dict[int, Value] = {0: _COLOURS[input.colour]}
        height, width, _ = input.shape
        if height and width:
            properties[1] = {0: Word(width), 1: Word(height)}
        table[_TENSOR_CONTENT] = {0: Byte(2), 1: properties}
        if input.range is not None and input.range[0] == 0:
            table[_TENSOR_STEPS] = [{0: Byte(1), 1: {0: Floats((0.0,)), 1: Floats((255.0 / input.range[1],))}}]
    return table


def _describe_other(tensor: str) -> Table:
    return {_TENSOR_NAME: tensor, _TENSOR_DESCRIPTION: _OTHERS.get(tensor, ""), _TENSOR_CONTENT: _PLAIN_CONTENT}


def _describe_output(tensor: str, heads: dict[str, HeadRecord]) -> Table:
    """What an output `<head>.<quantity>` means; the mean has the labels of its last axis."""
    name, _, quantity = tensor.partition(".")
    if name not in heads:
        return _describe_other(tensor)
    head = heads[name]
    table: dict[int, Value] = {**_describe_other(tensor), _TENSOR_DESCRIPTION: _describe_quantity(head, quantity)}
    if quantity == "mean" and head.outputs["mean"] and head.outputs["mean"][-1] == len(head.labels):
        table[_TENSOR_FILES] = [{0: _labels_file(head), 1: f"labels of {tensor}, in its last axis", 2: _AXIS_LABELS}]
    return table


def _describe_quantity(head: HeadRecord, quantity: str) -> str:
    unit = f", in {head.unit}" if head.unit else ""
    where = ", at each position" if head.per_position else ""
    if quantity == "mean":
        return f"{_MEANS[head.kind]}{unit}{where}"
    if quantity in _UNCERTAINTIES:
        measure = "variance" if head.combine == "variance" else "entropy in nats"
        return f"{_UNCERTAINTIES[quantity]}, {measure}{f' of {head.unit}' if head.unit else ''}{where}"
    return f"{quantity} of the likelihood ({head.likelihood}), averaged over the draws{where}"


def _labels_file(head: HeadRecord) -> str:
    return f"{head.name}.labels.txt"
