"""ONNX files: opset 18, names kept, and nothing that ONNX Runtime would refuse."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from probrt.runtime.errors import ParityError, one_line

OPSET = 18
# Its optimisers copy the whole graph before each pass, to go on without a pass that fails: four tenths of an
# export's time, and here a fault is a fault.
os.environ["TF2ONNX_CATCH_ERRORS"] = "FALSE"


def onnx(function: Callable[..., dict[str, tf.Tensor]], name: str) -> Any:
    """The ONNX model of a frozen function; ParityError names the file and the op that does not convert."""
    import onnx as onnx_package
    import tf2onnx

    with _errors_of_tf2onnx() as errors:
        try:
            model, _ = tf2onnx.convert.from_function(
                function, input_signature=list(function.input_signature), opset=OPSET
            )
        except Exception as error:  # tf2onnx raises whatever its handlers raise
            raise ParityError(f"{name}: does not convert to ONNX: {one_line(error)[:300]}") from None
    if errors:
        # tf2onnx logs "Unsupported ops", writes a file that no engine loads, and calls it success.
        raise ParityError(f"{name}: does not convert to ONNX: {' '.join(errors[0].split())[:300]}")
    onnx_package.checker.check_model(model)
    return model


def with_metadata(model: Any, name: str, value: bytes) -> bytes:
    """The bytes of an ONNX model with a metadata property, which any ONNX reader can look up by its name."""
    import onnx as onnx_package

    onnx_package.helper.set_model_props(model, {name: value.decode()})
    return bytes(model.SerializeToString())


@contextmanager
def _errors_of_tf2onnx() -> Iterator[list[str]]:
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
