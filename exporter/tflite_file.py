"""The bytes of a TFLite file as objects that can be changed, and back."""

from __future__ import annotations

from typing import Any


def unpack_model(content: bytes) -> Any:
    """Returns the file's `ModelT`: subgraphs, buffers, signatures and metadata."""
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))


def pack_model(model: Any) -> bytes:
    """Returns the bytes of a TFLite file."""
    import flatbuffers

    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
