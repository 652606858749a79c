"""A model repository for Triton Inference Server and KServe, from the first chunk of a bundle's bank."""

from __future__ import annotations

import shutil
from pathlib import Path

from probrt.exporter.publish import stage_version
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import FileRecord
from probrt.runtime.errors import ParityError, UsageError
from probrt.runtime.files import write_atomic

MAX_BATCH = 64


def publish(bundle: Bundle, repository: Path) -> Path:
    """Writes `<repository>/<model>/`: config.pbtxt, `<version>/model.onnx`, and a file of labels per class head.

    Returns the model's folder. Raises UsageError if the bundle has no ONNX file of draws or the version is there.
    """
    model = repository / bundle.manifest.model.name
    source = _source(bundle)
    text = config(bundle, source)
    with stage_version(model, bundle.manifest.model.version) as folder:
        for head in bundle.manifest.heads:
            if len(head.labels) > 1:
                write_atomic(model / f"{head.name}.txt", "".join(f"{label}\n" for label in head.labels).encode())
        write_atomic(model / "config.pbtxt", text.encode())
        shutil.copyfile(bundle.path / source.path, folder / "model.onnx")
    return model


def config(bundle: Bundle, source: FileRecord) -> str:
    """config.pbtxt for one ONNX file; ParityError if its inputs and outputs are not those of the manifest."""
    import onnx

    graph = onnx.load_from_string(bundle.read(source)).graph
    stated = {
        f"{head.name}.{quantity}": (list(shape), len(head.labels) > 1 and quantity == "mean")
        for head in bundle.manifest.heads
        for quantity, shape in head.outputs.items()
        if source.variant != "mean" or quantity not in ("total", "epistemic")
    }
    for kind, found, expected in (
        ("inputs", [one.name for one in graph.input], ["images"]),
        ("outputs", [one.name for one in graph.output], list(stated)),
    ):
        if sorted(found) != sorted(expected):
            raise ParityError(f"{source.path}: its {kind} are {', '.join(found)}, the manifest's {', '.join(expected)}")
    lines = [
        f'name: "{bundle.manifest.model.name}"',
        'platform: "onnxruntime_onnx"',
        f"max_batch_size: {MAX_BATCH}",
        f'input [ {{ name: "images" data_type: TYPE_FP32 {_dims(bundle.manifest.input.shape)} }} ]',
        *(
            f'output [ {{ name: "{name}" data_type: TYPE_FP32 {_dims(stated[name][0])}'
            + (f' label_filename: "{name.partition(".")[0]}.txt"' if stated[name][1] else "")
            + " } ]"
            for name in (one.name for one in graph.output)
        ),
        "dynamic_batching { max_queue_delay_microseconds: 2000 }",
    ]
    return "\n".join(lines) + "\n"


def _source(bundle: Bundle) -> FileRecord:
    files = bundle.files("onnx", "draws") or bundle.files("onnx", "mean")
    if not files:
        raise UsageError(
            f"{bundle.label}: has no float32 ONNX file; leave onnx in --formats and float32 in --precisions"
        )
    if files[0].variant == "mean" and bundle.manifest.posterior is not None:
        raise UsageError(f"{bundle.label}: has no ONNX file of draws; leave draws in --variants")
    return files[0]


def _dims(shape: list[int | None]) -> str:
    # A scalar per row: Triton wants at least one side behind the batch, and takes it away again.
    if not shape:
        return "dims: [ 1 ] reshape { shape: [ ] }"
    return f"dims: [ {', '.join(str(side or -1) for side in shape)} ]"
