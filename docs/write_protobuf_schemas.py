"""Writes runtime/bundle/protobuf_schemas.py from the message types of the TensorFlow and ONNX that are installed."""

from pathlib import Path
from typing import Any

HEADER = '''"""The message types of SavedModel and ONNX: field number → type; see `protobuf.Schema`.

Written by docs/write_protobuf_schemas.py from TensorFlow's and ONNX's own descriptors; a test compares them.
"""

from typing import Final

from probrt.runtime.bundle.protobuf import Schema

'''
SCALARS = {
    1: "fixed64",
    2: "fixed32",
    6: "fixed64",
    7: "fixed32",
    9: "bytes",
    12: "bytes",
    15: "fixed32",
    16: "fixed64",
}


def read_schema(root: Any) -> dict[str, dict[int, str]]:
    """Returns every message type that a root type can hold, by name."""
    schema: dict[str, dict[int, str]] = {}
    waiting = [root]
    while waiting:
        descriptor = waiting.pop()
        if descriptor.full_name in schema:
            continue
        fields = {}
        for field in descriptor.fields:
            mark = "*" if field.is_repeated else ""
            if field.message_type:
                waiting.append(field.message_type)
                mark = "@" if field.message_type.GetOptions().map_entry else mark
            kind = field.message_type.full_name if field.message_type else SCALARS.get(field.type, "varint")
            fields[field.number] = kind + mark
        schema[descriptor.full_name] = dict(sorted(fields.items()))
    return dict(sorted(schema.items()))


def read_schemas() -> dict[str, dict[str, dict[int, str]]]:
    """Returns the schemas of the module, by its names."""
    import onnx
    from tensorflow.core.protobuf import saved_model_pb2

    return {
        "SAVED_MODEL": read_schema(saved_model_pb2.SavedModel.DESCRIPTOR),
        "ONNX": read_schema(onnx.ModelProto.DESCRIPTOR),
    }


if __name__ == "__main__":
    text = HEADER
    for name, schema in read_schemas().items():
        text += f"{name}: Final[Schema] = {{\n"
        for message, fields in schema.items():
            text += f'    "{message}": {{' + ", ".join(f'{field}: "{kind}"' for field, kind in fields.items()) + "},\n"
        text += "}\n\n"
    (Path(__file__).parents[1] / "runtime" / "bundle" / "protobuf_schemas.py").write_text(text.rstrip() + "\n")
