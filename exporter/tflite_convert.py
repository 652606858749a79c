"""TFLite files: graphs of builtin ops, one signature, names kept."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from probrt.exporter.constants import save_function
from probrt.exporter.graphs import GraphFunction
from probrt.exporter.tflite_file import pack_model, unpack_model
from probrt.runtime.errors import ParityError, one_line
from probrt.runtime.hush import hush


def convert_to_tflite(function: GraphFunction, name: str) -> bytes:
    """Converts a frozen function to the bytes of a TFLite file.

    Raises ParityError with the file's name and the op that does not convert.
    """
    with tempfile.TemporaryDirectory() as folder:
        save_function(function, Path(folder))
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serving_default"])
        try:
            with hush():
                content: bytes = converter.convert()
        except Exception as error:  # the converter raises its own private classes
            raise ParityError(f"{name}: does not convert to TFLite: {one_line(error)[:300]}") from None
    return content


def add_metadata(content: bytes, entries: Mapping[str, bytes]) -> bytes:
    """Returns the file with metadata entries, which any TFLite reader can look up by their names."""
    from ai_edge_litert import schema_py_generated as schema

    model = unpack_model(content)
    for name, value in entries.items():
        buffer, entry = schema.BufferT(), schema.MetadataT()
        buffer.data = np.frombuffer(value, np.uint8)
        entry.name, entry.buffer = name, len(model.buffers)
        model.buffers.append(buffer)
        model.metadata = [*(model.metadata or []), entry]
    return pack_model(model)
