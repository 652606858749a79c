"""ONNX files: opset 18, names kept, and no op that ONNX Runtime would refuse."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from probrt.exporter.graphs import GraphFunction
from probrt.exporter.onnx_clips import join_clips
from probrt.exporter.onnx_transposes import remove_transposes
from probrt.runtime.bundle.manifest import NOVELTY
from probrt.runtime.errors import ParityError, one_line

OPSET = 18
# By default tf2onnx copies the whole graph before each optimiser, so that it can go on without one that fails. The
# copies take four tenths of an export's time, and here a fault stops the export.
os.environ["TF2ONNX_CATCH_ERRORS"] = "FALSE"


def convert_to_onnx(function: GraphFunction, name: str) -> Any:
    """Converts a frozen function to an ONNX model (a ModelProto).

    Raises ParityError with the file's name and the op that does not convert.
    """
    import onnx
    import tf2onnx

    with _collect_errors() as errors:
        try:
            model, _ = tf2onnx.convert.from_function(
                function, input_signature=list(function.input_signature), opset=OPSET
            )
        except Exception as error:  # tf2onnx raises whatever its handlers raise
            raise ParityError(f"{name}: does not convert to ONNX: {one_line(error)[:300]}") from None
    if errors:
        # tf2onnx logs "Unsupported ops", writes a file that no engine loads, and reports success.
        raise ParityError(f"{name}: does not convert to ONNX: {' '.join(errors[0].split())[:300]}")
    remove_transposes(model)
    join_clips(model)
    _put_novelty_first(model)
    _name_dimensions(model)
    onnx.checker.check_model(model)
    return model


def _put_novelty_first(model: Any) -> None:
    """Puts the outputs of novelty before the others; in place.

    OpenVINO computes outputs in their order. Novelty then reads each map as soon as it is there, and not after the
    network, until when all maps would have to stay in memory: of 64 images that cost as much as the rest of novelty.
    """
    outputs = sorted(model.graph.output, key=lambda output: not output.name.startswith(f"{NOVELTY}."))
    del model.graph.output[:]
    model.graph.output.extend(outputs)


def _name_dimensions(model: Any) -> None:
    """Names the dimensions of inputs and outputs that vary: the first is the batch, the sides of the input follow.

    tf2onnx calls them unk__1, unk__2, …; other tools show these names, and compare them between inputs and outputs.
    """
    sides = {3: ("length",), 4: ("height", "width"), 5: ("depth", "height", "width")}
    for value in (*model.graph.input, *model.graph.output):
        dimensions = value.type.tensor_type.shape.dim
        names = ("batch", *(sides.get(len(dimensions), ()) if value in model.graph.input else ()))
        for dimension, name in zip(dimensions, names, strict=False):
            if dimension.dim_param:
                dimension.dim_param = name


def serialize_with_metadata(model: Any, name: str, value: bytes) -> bytes:
    """Returns an ONNX model's bytes with a metadata property, which any ONNX reader can look up by its name."""
    import onnx

    onnx.helper.set_model_props(model, {name: value.decode()})
    return bytes(model.SerializeToString())


@contextmanager
def _collect_errors() -> Iterator[list[str]]:
    """Collects the errors that tf2onnx only logs."""
    errors: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            errors.append(record.getMessage())

    collector = Collector(logging.ERROR)
    loggers = [logging.getLogger("tf2onnx"), logging.getLogger("tf2onnx.tfonnx")]
    propagated = [logger.propagate for logger in loggers]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(collector)
        logger.setLevel(logging.ERROR)
    try:
        yield errors
    finally:
        for logger, propagate, level in zip(loggers, propagated, levels, strict=True):
            logger.removeHandler(collector)
            logger.propagate = propagate
            logger.setLevel(level)
