"""From a model directory to a published bundle."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from probrt.exporter import graphs, parity, savedmodel
from probrt.exporter.onnx import onnx
from probrt.exporter.publish import next_version, staged
from probrt.exporter.reference import Reference
from probrt.exporter.tflite import tflite
from probrt.runtime.bundle import Bundle
from probrt.runtime.errors import ParityError
from probrt.runtime.manifest import NAME, File, Format, Head, Manifest, Posterior, Provenance, Variant, encode
from probrt.runtime.manifest import Model as Named
from probrt.trainer import store
from probrt.trainer.model import Model

CHUNK = 8
MAX_SAMPLES = 1024
_CONVERTERS = {"tflite": tflite, "onnx": onnx}
_PACKAGES = ("tensorflow", "keras", "tensorflow-probability", "tf2onnx", "onnx", "numpy")


@dataclass(frozen=True)
class Request:
    """What to export: `draws` in the bank, a multiple of CHUNK, and the bundle's own seed."""

    draws: int = 32
    seed: int = 0
    version: int | None = None


@dataclass(frozen=True)
class Exported:
    """A published bundle and how its files were found to differ from the model."""

    bundle: Bundle
    differences: tuple[parity.Difference, ...]


def export(
    folder: Path,
    artifacts: Path,
    request: Request,
    doing: Callable[[str], None] = lambda step: None,
    checked: Callable[[parity.Difference], None] = lambda difference: None,
) -> Exported:
    """Publishes the next version of a model directory's bundle under `artifacts/<name>/`.

    doing: told of each step; checked: of each file's check. Raises ParityError, and publishes nothing,
    if any file says something else than the model.
    """
    model, card = store.load(folder)
    home = artifacts / model.name
    version = request.version or next_version(home)
    posterior = _posterior(model, request)
    with staged(home, version) as stage:
        files = _written(model, posterior, stage, doing)
        manifest = Manifest(
            probrt=importlib.metadata.version("probrt"),
            model=Named(name=model.name, version=version),
            input=model.input,
            heads=heads(model),
            files=files,
            posterior=posterior,
            calibration=list(model.calibration),
            provenance=Provenance(training=card.provenance, export=_provenance(request)),
        )
        (stage / NAME).write_bytes(encode(manifest))
        doing("checking every file against the model")
        found = []
        low, high = model.input.range or (0.0, 1.0)
        images = parity.checking_images(store.images(folder), low, high)
        for difference in parity.differences(Bundle.open(stage), Reference(model, manifest.heads), images):
            checked(difference)
            found.append(difference)
        faults = [f"{one.file}: {fault}" for one in found for fault in one.faults]
        if faults:
            raise ParityError(f"{folder}: {faults[0]} ({len(faults)} in all); nothing was published")
        rows = [row for one in found for row in one.outputs]
        (stage / NAME).write_bytes(encode(msgspec.structs.replace(manifest, parity=rows)))
    return Exported(Bundle.open(home / str(version)), tuple(found))


def heads(model: Model) -> list[Head]:
    """The heads as the manifest states them."""
    return [
        Head(
            name=head.name,
            likelihood=type(head).__struct_config__.tag,
            combine=head.combine,
            per_position=head.per_position,
            labels=list(head.names),
            unit=getattr(head, "unit", ""),
            outputs=head.outputs(model.positions(head)),
            edges=getattr(head, "edges", []),
        )
        for head in model.heads
    ]


def _posterior(model: Model, request: Request) -> Posterior | None:
    if not model.weights:
        return None
    return Posterior(
        seed=request.seed,
        order=list(range(request.draws)),
        chunk=CHUNK,
        samples=request.draws,
        max_samples=MAX_SAMPLES,
    )


def _written(model: Model, posterior: Posterior | None, stage: Path, doing: Callable[[str], None]) -> list[File]:
    """Every file of a bundle, written into `stage`."""
    files = []

    def keep(name: str, format: Format, variant: Variant, draws: tuple[int, int] | None = None) -> None:
        data = (stage / name).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        files.append(File(path=name, bytes=len(data), sha256=digest, format=format, variant=variant, draws=draws))

    doing("SavedModel")
    savedmodel.save(model, posterior, stage)
    for path in sorted(path for path in stage.rglob("*") if path.is_file()):
        keep(path.relative_to(stage).as_posix(), "savedmodel", "sampled" if posterior else "mean")
    mean = graphs.mean_function(model)
    for format, convert in _CONVERTERS.items():
        doing(f"mean.{format}")
        (stage / f"mean.{format}").write_bytes(convert(mean, f"mean.{format}"))
        keep(f"mean.{format}", format, "mean")
    if posterior and all(weight.posterior.in_graph for weight in model.weights):
        sampled = graphs.sampled_function(model, posterior)
        for format, convert in _CONVERTERS.items():
            doing(f"sampled.{format}")
            (stage / f"sampled.{format}").write_bytes(convert(sampled, f"sampled.{format}"))
            keep(f"sampled.{format}", format, "sampled")
    for chunk, first in enumerate(range(0, len(posterior.order) if posterior else 0, CHUNK)):
        indices = posterior.order[first : first + CHUNK]
        draws = graphs.draws_function(model, posterior.seed, indices)
        for format, convert in _CONVERTERS.items():
            name = f"draws-{chunk:02d}.{format}"
            doing(name)
            (stage / name).write_bytes(convert(draws, name))
            keep(name, format, "draws", (first, len(indices)))
    return files


def _provenance(request: Request) -> dict[str, object]:
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"draws": request.draws, "seed": request.seed, "versions": versions}
