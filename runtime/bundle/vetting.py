"""Checks one file of a bundle: its digest, and if it is a graph, what that may do."""

from pathlib import PurePosixPath

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import FileRecord
from probrt.runtime.bundle.vet_onnx import vet_onnx
from probrt.runtime.bundle.vet_saved_model import vet_saved_model
from probrt.runtime.errors import BundleError

# Other files that a TensorFlow loader would take for a graph, or for a part of one.
_OTHER_GRAPHS = ("saved_model.pbtxt", "saved_model.cpb")


def vet(bundle: Bundle, file: FileRecord) -> None:
    """Checks the digest of a file of a bundle and, if it is a graph, what that may do; BundleError."""
    if PurePosixPath(file.path).name in _OTHER_GRAPHS:
        raise BundleError(f"{file.path}: a SavedModel in a form that a bundle may not have")
    try:
        if PurePosixPath(file.path).name == "saved_model.pb":
            vet_saved_model(bundle.read(file), file.path, bundle.manifest.ops)
        elif file.format == "onnx":
            vet_onnx(bundle.read(file), file.path)
        else:
            bundle.check(file)
    except BundleError as error:
        raise BundleError(str(error) if file.path in str(error) else f"{file.path}: {error}") from None
