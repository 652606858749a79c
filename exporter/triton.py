"""A model repository for Triton Inference Server and KServe: the whole bank in one ONNX file.

`<repository>/<model>/` takes raw values. Beside it, in a repository of its own because it needs probrt in the server,
`<repository>-encoded/` takes picture files: `<model>-decode` decodes them in Triton's Python backend, and the ensemble
`<model>-encoded` gives them to the newest version of `<model>`.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from probrt.exporter.join_chunks import choose_files, join_chunks
from probrt.exporter.kserve import make_triton_manifest
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import Manifest
from probrt.runtime.bundle.publish import stage_version
from probrt.runtime.engines.outputs import expected_outputs
from probrt.runtime.errors import UsageError
from probrt.runtime.files import write_atomic

MAX_BATCH = 64
CONFIG = "config.pbtxt"
_DECODE = "from probrt.runtime.serving.triton_decode import TritonPythonModel\n"


def write_repository(bundle: Bundle, repository: Path) -> Path:
    """Writes `<repository>/<model>/`: config.pbtxt, `<version>/model.onnx`, and a file of labels per class head.

    Writes `<repository>-encoded/` too, if the model takes pictures of one size, and `<repository>/<model>.yaml` for
    KServe. Returns the model's folder. What is there already stays, with whatever its owner added to config.pbtxt.
    Raises UsageError if the bundle has no ONNX file of draws, the version is there, or the folder holds another model.
    """
    model = repository / bundle.manifest.model.name
    configs = {model: make_config(bundle)}
    if takes_pictures(bundle.manifest):
        encoded = repository.with_name(f"{repository.name}-encoded")
        configs[encoded / f"{model.name}-decode"] = _make_decode_config(bundle.manifest)
        configs[encoded / f"{model.name}-encoded"] = _make_ensemble_config(bundle)
    for folder, config in configs.items():
        _check_folder(folder, config)
    with stage_version(model, bundle.manifest.model.version) as stage:
        (stage.folder / "model.onnx").write_bytes(join_chunks(bundle))
        for head in bundle.manifest.heads:
            if len(head.labels) > 1:
                write_atomic(model / f"{head.name}.txt", "".join(f"{label}\n" for label in head.labels).encode())
        for folder, config in configs.items():
            _write_config(folder, config)
        manifest = repository / f"{model.name}.yaml"
        if not manifest.exists():
            write_atomic(manifest, make_triton_manifest(model.name).encode())
        stage.publish()
    return model


def takes_pictures(manifest: Manifest) -> bool:
    """Whether picture files become rows of one batch: two dimensions, of a fixed size."""
    return len(manifest.input.shape) == 3 and None not in manifest.input.shape and manifest.input.colour != "none"


def make_config(bundle: Bundle) -> str:
    """Returns config.pbtxt of the model that takes raw values, every version of which is served."""
    shape = bundle.manifest.input.shape
    lines = [
        *_start_config(bundle.manifest.model.name),
        'platform: "onnxruntime_onnx"',
        "version_policy { all { } }",
        f'input [ {{ name: "images" data_type: TYPE_FP32 {_format_dims(shape)} }} ]',
        *_format_outputs(bundle, seen=False),
        "dynamic_batching { max_queue_delay_microseconds: 2000 }",
    ]
    return "\n".join(lines) + "\n"


def _make_decode_config(manifest: Manifest) -> str:
    """Returns config.pbtxt of the model that decodes pictures; its parameter is the manifest's record of the input."""
    record = msgspec.json.encode(manifest.input).decode().replace('"', '\\"')
    lines = [
        *_start_config(f"{manifest.model.name}-decode"),
        'backend: "python"',
        'input [ { name: "image_bytes" data_type: TYPE_STRING dims: [ 1 ] } ]',
        f'output [ {{ name: "images" data_type: TYPE_FP32 {_format_dims(manifest.input.shape)} }} ]',
        f'parameters {{ key: "input" value {{ string_value: "{record}" }} }}',
        "instance_group [ { count: 2 kind: KIND_CPU } ]",
    ]
    return "\n".join(lines) + "\n"


def _make_ensemble_config(bundle: Bundle) -> str:
    name = bundle.manifest.model.name
    outputs = " ".join(f'output_map {{ key: "{output}" value: "{output}" }}' for output in _outputs(bundle))
    lines = [
        *_start_config(f"{name}-encoded"),
        'platform: "ensemble"',
        'input [ { name: "image_bytes" data_type: TYPE_STRING dims: [ 1 ] } ]',
        *_format_outputs(bundle, seen=True),
        "ensemble_scheduling {",
        f'  step [ {{ model_name: "{name}-decode" model_version: -1 {_map("input", "image_bytes")} '
        f"{_map('output', 'images')} }},",
        f'         {{ model_name: "{name}" model_version: -1 {_map("input", "images")} {outputs} }} ]',
        "}",
    ]
    return "\n".join(lines) + "\n"


def _start_config(name: str) -> list[str]:
    return [f'name: "{name}"', f"max_batch_size: {MAX_BATCH}"]


def _map(kind: str, tensor: str) -> str:
    return f'{kind}_map {{ key: "{tensor}" value: "{tensor}" }}'


def _outputs(bundle: Bundle) -> dict[str, list[int | None]]:
    """The outputs of the joined model by name: their shapes without the batch."""
    source = choose_files(bundle)[0]
    return expected_outputs(bundle.manifest, source, source.variant)


def _format_outputs(bundle: Bundle, seen: bool) -> list[str]:
    """Returns the outputs' lines. seen: with the shapes that a client sees, as an ensemble's are."""
    labelled = {f"{head.name}.mean": f"{head.name}.txt" for head in bundle.manifest.heads if len(head.labels) > 1}
    lines = []
    for name, shape in _outputs(bundle).items():
        labels = f' label_filename: "{labelled[name]}"' if name in labelled and not seen else ""
        dims = _format_dims(shape or [1] if seen else shape)
        lines.append(f'output [ {{ name: "{name}" data_type: TYPE_FP32 {dims}{labels} }} ]')
    return lines


def _format_dims(shape: list[int | None]) -> str:
    # Triton wants at least one side after the batch. `reshape` removes it for the file alone: a client sees [batch, 1].
    if not shape:
        return "dims: [ 1 ] reshape { shape: [ ] }"
    return f"dims: [ {', '.join(str(side or -1) for side in shape)} ]"


def _check_folder(folder: Path, config: str) -> None:
    """Raises UsageError if the folder holds a model of other inputs and outputs: all versions share one config."""
    path = folder / CONFIG
    if not path.exists():
        return
    present = set(path.read_text(errors="replace").splitlines())
    stated = [line for line in config.splitlines() if line.startswith(("input", "output", "parameters"))]
    if missing := [line for line in stated if line not in present]:
        raise UsageError(
            f"{path}: is of another model, it lacks the line {missing[0]!r}; "
            "export under another --name, or remove the folder"
        )


def _write_config(folder: Path, config: str) -> None:
    """Writes config.pbtxt, and the only version of a model that refers to the newest one of another."""
    folder.mkdir(parents=True, exist_ok=True)
    if folder.name.endswith(("-decode", "-encoded")) and not (folder / "1").exists():
        (folder / "1").mkdir()
        name, content = ("model.py", _DECODE) if folder.name.endswith("-decode") else (".keep", "")
        write_atomic(folder / "1" / name, content.encode())
    if not (folder / CONFIG).exists():
        write_atomic(folder / CONFIG, config.encode())
