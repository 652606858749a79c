"""What an ONNX file may hold, checked in its bytes before any engine loads it.

The bytes must be canonical (`protobuf.check_message`), so that the engine reads what is checked here. A file may hold
operations of ONNX's own domains, and no tensor, wherever it stands, that lies in another file.
"""

from __future__ import annotations

from probrt.runtime.bundle.protobuf import check_message, find_all, read_fields, read_text
from probrt.runtime.bundle.protobuf_schemas import ONNX
from probrt.runtime.errors import BundleError

ROOT = "onnx.ModelProto"
_DOMAINS = ("", "ai.onnx", "com.microsoft")
# Fields of TensorProto.
_EXTERNAL_DATA, _LOCATION = 13, 14


def vet_onnx(content: bytes, where: str) -> None:
    """Raises BundleError for an ONNX file with tensors in other files, or operations of a foreign domain."""
    try:
        message = memoryview(content)
        check_message(message, ROOT, ONNX)
        for node in find_all(message, ROOT, ONNX, "onnx.NodeProto"):
            if read_text(node, 7) not in _DOMAINS:
                raise BundleError(f"holds {read_text(node, 4)} of domain {read_text(node, 7)}, which a bundle may not")
        for tensor in find_all(message, ROOT, ONNX, "onnx.TensorProto"):
            if _lies_elsewhere(tensor):
                name = read_text(tensor, 8)
                raise BundleError(f"its tensor {name} lies in another file, which a bundle may not have")
    except BundleError as error:
        raise BundleError(f"{where}: {error}") from None


def _lies_elsewhere(tensor: memoryview) -> bool:
    return any(field == _EXTERNAL_DATA or (field == _LOCATION and value) for field, value in read_fields(tensor))
