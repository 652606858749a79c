"""The files of a version that is not published yet, and its manifest."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from probrt.exporter.bundle_writer import BundleWriter
from probrt.exporter.int8_files import Int8Files
from probrt.exporter.plan import ExportPlan
from probrt.exporter.records import make_head_records, make_novelty_record
from probrt.exporter.sbom import write_sbom
from probrt.exporter.steps import Steps
from probrt.runtime.bundle.manifest import NAME, FileRecord, Manifest, ModelRecord, PosteriorRecord, Provenance
from probrt.runtime.bundle.manifest_file import encode
from probrt.runtime.bundle.vet_saved_model import saved_model_ops

_SAVED_MODEL = "saved_model.pb"
_PACKAGES = ("tensorflow", "keras", "tensorflow-probability", "tf2onnx", "onnx", "numpy")


@dataclass(frozen=True)
class Draft:
    """What an export writes, in parts; a plan's model may change between them, as its draws are tuned.

    version: expected. images: representative inputs [count, *input.shape].
    """

    folder: Path
    version: int
    images: npt.NDArray[np.float32]
    int8_files: Int8Files
    steps: Steps

    def make_writer(self, plan: ExportPlan, posterior: PosteriorRecord | None) -> BundleWriter:
        """Returns what writes the files of the plan's model."""
        return BundleWriter(
            model=plan.model,
            heads=make_head_records(plan.model),
            posterior=posterior,
            images=self.images,
            folder=self.folder,
            steps=self.steps,
            int8_files=self.int8_files,
        )

    def write_manifest(
        self, plan: ExportPlan, posterior: PosteriorRecord | None, files: Sequence[FileRecord]
    ) -> Manifest:
        """Writes and returns a manifest without parity records, which has what the check needs to open the bundle."""
        model, graph = plan.model, self.folder / _SAVED_MODEL
        manifest = Manifest(
            probrt=importlib.metadata.version("probrt"),
            model=ModelRecord(name=model.name, version=self.version),
            input=model.input,
            heads=make_head_records(model),
            files=list(files),
            posterior=posterior,
            calibration=list(model.calibration),
            novelty=make_novelty_record(model),
            ops=saved_model_ops(graph.read_bytes()) if graph.exists() else None,
            documents=[write_sbom(self.folder, model.name, plan.training)],
            provenance=Provenance(training=plan.training, export=self._make_provenance(plan)),
        )
        (self.folder / NAME).write_bytes(encode(manifest))
        return manifest

    def _make_provenance(self, plan: ExportPlan) -> dict[str, object]:
        versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
        layers = self.int8_files.describe()
        provenance: dict[str, object] = {"draws": plan.draws, "seed": plan.request.seed, "versions": versions}
        return provenance | ({"int8_layers": layers} if layers else {})
