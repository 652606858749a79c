"""A model folder for OpenVINO Model Server: numbered versions with one file each, which answers for the whole bank."""

from __future__ import annotations

from pathlib import Path

from probrt.exporter.join_chunks import join_chunks
from probrt.exporter.kserve import make_openvino_manifest
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.publish import stage_version
from probrt.runtime.errors import UsageError
from probrt.runtime.files import write_atomic

MODEL = "model.onnx"


def write_model(bundle: Bundle, folder: Path) -> Path:
    """Writes `<folder>/<model>/<version>/model.onnx`, and `<folder>/<model>.yaml` for KServe.

    Returns the model's folder. A manifest that is there already stays.
    Raises UsageError if the bundle has no ONNX file of draws, the version is there, or the folder holds another model.
    """
    name = bundle.manifest.model.name
    home, manifest = folder / name, folder / f"{name}.yaml"
    for version in home.glob("[0-9]*"):
        if not (version / MODEL).is_file():
            raise UsageError(f"{version}: is of another model, it has no {MODEL}; export under another --name")
    with stage_version(home, bundle.manifest.model.version) as stage:
        (stage.folder / MODEL).write_bytes(join_chunks(bundle))
        if not manifest.exists():
            write_atomic(manifest, make_openvino_manifest(name).encode())
        stage.publish()
    return home
