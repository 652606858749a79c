"""A model folder for MLflow, with a model card for the Hugging Face Hub: the bundle, MLmodel and its environment.

`probrt.runtime.serving.mlflow_model` loads it. MLmodel is written by hand, so that no MLflow is needed here.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import platform
import shutil
from pathlib import Path
from typing import Any

from probrt.exporter.hub_card import make_hub_card
from probrt.exporter.yaml_text import format_yaml
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import (
    NAME,
    NOVELTY,
    NOVELTY_MAP,
    NOVELTY_QUANTITIES,
    QUANTITIES,
    HeadRecord,
    Manifest,
)
from probrt.runtime.bundle.publish import stage_version
from probrt.runtime.errors import UsageError
from probrt.runtime.files import write_whole

LOADER = "probrt.runtime.serving.mlflow_model"
# What the light runtime computes with; an engine for the format of the bundle is added.
_PACKAGES = ("numpy", "pillow", "msgspec")
_ENGINES = {"tflite": "ai-edge-litert", "onnx": "onnxruntime"}


def write_mlflow_model(bundle: Bundle, models: Path, model: Path) -> Path:
    """Writes `<models>/<name>/<version>/` and returns it.

    model: the model directory that the bundle was exported from, for the card. Raises UsageError if the bundle has
    neither TFLite nor ONNX files, or if the version is there.
    """
    manifest = bundle.manifest
    engines = [package for format, package in _ENGINES.items() if bundle.files(format)]
    if not engines:
        raise UsageError(f"{bundle.label}: has no float32 TFLite or ONNX file; leave tflite or onnx in --formats")
    requirements = [
        f"probrt=={importlib.metadata.version('probrt')}",
        *(f"{name}=={importlib.metadata.version(name)}" for name in (*_PACKAGES, engines[0])),
        "pandas",
        "mlflow-skinny>=3",
    ]
    python = platform.python_version()
    environment = {"python": python, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}
    conda = {
        "name": "probrt",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": requirements}],
    }
    files = {
        "MLmodel": format_yaml(make_mlmodel(bundle, python)),
        "python_env.yaml": format_yaml(environment),
        "conda.yaml": format_yaml(conda),
        "requirements.txt": "".join(f"{line}\n" for line in requirements),
        "README.md": make_hub_card(manifest, model),
    }
    with stage_version(models / manifest.model.name, manifest.model.version) as stage:
        shutil.copytree(bundle.path, stage.folder / "bundle")
        for name, text in files.items():
            write_whole(stage.folder / name, text.encode())
        return stage.publish()


def make_mlmodel(bundle: Bundle, python: str) -> dict[str, Any]:
    """Returns the content of the file MLmodel. python: the version of the environment."""
    manifest = bundle.manifest
    digest = hashlib.sha256((bundle.path / NAME).read_bytes())
    return {
        "artifact_path": "model",
        "flavors": {
            "python_function": {
                "loader_module": LOADER,
                "data": "bundle",
                "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
                "python_version": python,
            }
        },
        "model_uuid": digest.hexdigest()[:32],
        "signature": {
            "inputs": json.dumps([{"type": "binary", "name": "image", "required": True}]),
            "outputs": json.dumps(list_outputs(manifest)),
            "params": json.dumps(_list_params(manifest)) if manifest.posterior else None,
        },
        "utc_time_created": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
        "metadata": {"probrt": manifest.probrt, "bundle": bundle.label},
    }


def list_outputs(manifest: Manifest) -> list[dict[str, Any]]:
    """Returns the columns of the answer, as the schema of MLflow has them. What an error row leaves out is optional."""
    columns = [_column("status", "string", required=True), _column("error", "string"), _column("draws", "long")]
    columns.append(_column("effective_draws", "double"))
    columns += [_column(name, "string", required=True) for name in ("engine", "precision", "bundle")]
    if manifest.novelty is not None:
        columns += [_column(f"{NOVELTY}.{name}", "double") for name in NOVELTY_QUANTITIES]
        columns.append(_column(f"{NOVELTY}.unknown", "boolean"))
        columns += [_column(f"{NOVELTY}.{NOVELTY_MAP}", "double", 2)] if manifest.novelty.map else []
    for head in manifest.heads:
        columns += [_column(f"{head.name}.{name}", *kind) for name, kind in _list_quantities(manifest, head).items()]
    return columns


def _list_quantities(manifest: Manifest, head: HeadRecord) -> dict[str, tuple[str, int]]:
    """The columns of a head: what each holds, and in how many lists inside each other."""
    is_mean = all(file.variant == "mean" for file in manifest.files)
    known = [name for name in QUANTITIES if name in head.outputs and not (is_mean and name in ("total", "epistemic"))]
    quantities = {name: ("double", _count_lists(head, name)) for name in (*known, *head.extra)}
    if head.per_position:
        return quantities
    record = next((record for record in manifest.calibration if record.head == head.name), None)
    calibrated = bool(record and record.conformal)
    if head.kind == "class":
        quantities |= {"label": ("string", 0), "probability": ("double", 0)}
        return quantities | ({"set": ("string", 1), "coverage": ("double", 0)} if calibrated else {})
    if head.kind == "binary":
        return quantities | {"label": ("string", 1)}
    return quantities | {"interval": ("double", 1 + _count_lists(head, "mean")), "coverage": ("double", 0)}


def _count_lists(head: HeadRecord, name: str) -> int:
    """How many lists inside each other hold a quantity: of one entry, a row has a plain number."""
    sides = head.outputs[name]
    if head.per_position:
        return len(sides)
    sides = list(sides)
    while sides and sides[-1] == 1:
        sides.pop()
    return len(sides)


def _list_params(manifest: Manifest) -> list[dict[str, Any]]:
    posterior = manifest.posterior
    defaults = {"samples": posterior.samples, "seed": posterior.seed} if posterior else {}
    return [{"name": name, "default": value, "shape": None, "type": "long"} for name, value in defaults.items()]


def _column(name: str, type: str, lists: int = 0, *, required: bool = False) -> dict[str, Any]:
    column: dict[str, Any] = {"type": type}
    for _ in range(lists):
        column = {"type": "array", "items": column}
    return {**column, "name": name, "required": required}
