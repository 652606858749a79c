"""From a model directory to a published bundle."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from probrt.exporter import parity
from probrt.exporter.files import Writer, expected_bytes
from probrt.exporter.formats import FORMATS, VARIANTS, graph_files
from probrt.exporter.publish import next_version, staged
from probrt.exporter.reference import Reference
from probrt.exporter.select import Chosen, chosen
from probrt.runtime.bundle import Bundle
from probrt.runtime.errors import ParityError, UsageError
from probrt.runtime.manifest import NAME, Head, Manifest, Posterior, Provenance, encode
from probrt.runtime.manifest import Model as Named
from probrt.runtime.signing import sign
from probrt.runtime.vetting import saved_model_ops
from probrt.trainer import store
from probrt.trainer.model import Model

CHUNK = 8
MAX_SAMPLES = 1024
_REPRESENTATIVE = 64
_MUCH = 1e9
_GRAPH = "saved_model.pb"
_PACKAGES = ("tensorflow", "keras", "tensorflow-probability", "tf2onnx", "onnx", "numpy")


@dataclass(frozen=True)
class Request:
    """What to export: `draws` in the bank, a multiple of CHUNK, its seed, which files, and auxiliary heads or not.

    key: the private key to sign the bundle with. formats: None is all of them, if they come to less than a gigabyte.
    """

    draws: int = 32
    seed: int = 0
    version: int | None = None
    formats: tuple[str, ...] | None = None
    precisions: tuple[str, ...] = ("float32",)
    variants: tuple[str, ...] = VARIANTS
    select: bool = True
    auxiliary: bool = False
    key: Path | None = None


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
    model = model if request.auxiliary else model.without_auxiliary()
    home = artifacts / model.name
    version = request.version or next_version(home)
    formats = request.formats or FORMATS
    graphs = graph_files(formats, request.precisions, request.variants, variants(model))
    expected = expected_bytes(model, graphs, request.draws)
    if request.formats is None and expected > _MUCH:
        raise UsageError(
            f"{folder}: about {expected / 1e9:.1f} GB with {request.draws} draws in every format; "
            f"name those you need with --formats {','.join(FORMATS)}, or lower --draws"
        )
    kept = store.images(folder)
    low, high = model.input.range or (0.0, 1.0)
    doing(f"choosing the draws of the bank; about {expected / 1e6:.0f} MB to write")
    posterior = _posterior(model, kept, request)
    with staged(home, version) as stage:
        representative = parity.checking_images(kept, low, high, _REPRESENTATIVE)
        writer = Writer(model, heads(model), posterior, representative, stage, doing)
        files = writer.saved_model() if "savedmodel" in formats else []
        files += writer.graphs(graphs)
        manifest = Manifest(
            probrt=importlib.metadata.version("probrt"),
            model=Named(name=model.name, version=version),
            input=model.input,
            heads=list(writer.heads),
            files=files,
            posterior=posterior,
            calibration=list(model.calibration),
            ops=saved_model_ops((stage / _GRAPH).read_bytes()) if (stage / _GRAPH).exists() else None,
            provenance=Provenance(training=card.provenance, export=_provenance(request)),
        )
        (stage / NAME).write_bytes(encode(manifest))
        doing("checking every file against the model")
        found = []
        images = parity.checking_images(kept, low, high)
        for difference in parity.differences(Bundle.open(stage), Reference(model, manifest.heads), images):
            checked(difference)
            found.append(difference)
        faults = [f"{one.file}: {fault}" for one in found for fault in one.faults]
        if faults:
            raise ParityError(f"{folder}: {faults[0]} ({len(faults)} in all); nothing was published")
        rows = [row for one in found for row in one.outputs]
        (stage / NAME).write_bytes(encode(msgspec.structs.replace(manifest, parity=rows)))
        if request.key is not None:
            doing("signing")
            sign(stage, request.key)
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


def variants(model: Model) -> tuple[str, ...]:
    """The variants that a model has: only families whose draws can be made in a graph have `sampled`."""
    if not model.weights:
        return ("mean",)
    return VARIANTS if all(weight.posterior.in_graph for weight in model.weights) else ("mean", "draws")


def _posterior(model: Model, kept: np.ndarray, request: Request) -> Posterior | None:
    if not model.weights:
        return None
    bank = Chosen(list(range(request.draws)), None)
    if request.select and {"savedmodel", "draws"} & {*(request.formats or FORMATS), *request.variants}:
        bank = chosen(model, heads(model), kept, request.seed, request.draws, CHUNK)
    return Posterior(
        seed=request.seed,
        order=bank.order,
        chunk=CHUNK,
        samples=request.draws,
        max_samples=MAX_SAMPLES,
        selection=bank.selection,
    )


def _provenance(request: Request) -> dict[str, object]:
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"draws": request.draws, "seed": request.seed, "versions": versions}
