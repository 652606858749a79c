"""A model repository for Triton Inference Server and KServe, made from the first chunk of a bundle's bank."""

from __future__ import annotations

import shutil
from pathlib import Path

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import FileRecord, Manifest
from probrt.runtime.bundle.publish import stage_version
from probrt.runtime.engines.outputs import expected_outputs
from probrt.runtime.errors import ParityError, UsageError
from probrt.runtime.files import write_atomic

MAX_BATCH = 64


def write_repository(bundle: Bundle, repository: Path) -> Path:
    """Writes `<repository>/<model>/`: config.pbtxt, `<version>/model.onnx`, and a file of labels per class head.

    Returns the model's folder. Raises UsageError if the bundle has no ONNX file of draws or the version is there.
    """
    model = repository / bundle.manifest.model.name
    source = _choose_file(bundle)
    text = make_config(bundle, source)
    with stage_version(model, bundle.manifest.model.version) as stage:
        for head in bundle.manifest.heads:
            if len(head.labels) > 1:
                write_atomic(model / f"{head.name}.txt", "".join(f"{label}\n" for label in head.labels).encode())
        write_atomic(model / "config.pbtxt", text.encode())
        shutil.copyfile(bundle.path / source.path, stage.folder / "model.onnx")
        stage.publish()
    return model


def make_config(bundle: Bundle, source: FileRecord) -> str:
    """Returns config.pbtxt for one ONNX file; ParityError if its inputs and outputs are not those of the manifest."""
    import onnx

    graph = onnx.load_from_string(bundle.read(source)).graph
    outputs = expected_outputs(bundle.manifest, source, source.variant)
    output_names = [output.name for output in graph.output]
    for what, names, expected in (
        ("inputs", [input.name for input in graph.input], ["images"]),
        ("outputs", output_names, list(outputs)),
    ):
        if sorted(names) != sorted(expected):
            raise ParityError(f"{source.path}: its {what} are {', '.join(names)}, the manifest's {', '.join(expected)}")
    lines = [
        f'name: "{bundle.manifest.model.name}"',
        'platform: "onnxruntime_onnx"',
        f"max_batch_size: {MAX_BATCH}",
        f'input [ {{ name: "images" data_type: TYPE_FP32 {_format_dims(bundle.manifest.input.shape)} }} ]',
        *(_format_output(bundle.manifest, name, outputs[name]) for name in output_names),
        "dynamic_batching { max_queue_delay_microseconds: 2000 }",
    ]
    return "\n".join(lines) + "\n"


def _format_output(manifest: Manifest, name: str, shape: list[int | None]) -> str:
    has_labels = any(name == f"{head.name}.mean" and len(head.labels) > 1 for head in manifest.heads)
    labels = f' label_filename: "{name.partition(".")[0]}.txt"' if has_labels else ""
    return f'output [ {{ name: "{name}" data_type: TYPE_FP32 {_format_dims(shape)}{labels} }} ]'


def _choose_file(bundle: Bundle) -> FileRecord:
    """Returns the first chunk of the bank, or `mean` of a model without random weights."""
    files = bundle.files("onnx", "draws") or bundle.files("onnx", "mean")
    if not files:
        raise UsageError(
            f"{bundle.label}: has no float32 ONNX file; leave onnx in --formats and float32 in --precisions"
        )
    if files[0].variant == "mean" and bundle.manifest.posterior is not None:
        raise UsageError(f"{bundle.label}: has no ONNX file of draws; leave draws in --variants")
    return files[0]


def _format_dims(shape: list[int | None]) -> str:
    # Triton wants at least one side after the batch; a scalar per row gets one, and `reshape` removes it.
    if not shape:
        return "dims: [ 1 ] reshape { shape: [ ] }"
    return f"dims: [ {', '.join(str(side or -1) for side in shape)} ]"
