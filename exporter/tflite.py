"""TFLite files: float32 graphs of builtin ops, one signature, names kept."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from probrt.exporter import frozen
from probrt.runtime.errors import ParityError, one_line


def tflite(function: Callable[..., dict[str, tf.Tensor]], name: str) -> bytes:
    """The bytes of a TFLite file for a tf.function; ParityError names the file and the op that does not convert."""
    with tempfile.TemporaryDirectory() as folder:
        frozen.save(function, Path(folder))
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serving_default"])
        try:
            content: bytes = converter.convert()
        except Exception as error:  # the converter raises its own private classes
            raise ParityError(f"{name}: does not convert to TFLite: {one_line(error)[:300]}") from None
    return content
