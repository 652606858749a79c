"""Writes the golden files of the current bundle format: a model, its bundle, its answers, the runtime's bundle.

    python tests/golden/write.py FOLDER

Run it once per bundle format and commit what it writes as tests/golden/format-N; never rewrite an older format's
files, for they prove that what was published can still be read.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from cases import BY_NAME
from shapes import write_graphs, write_manifest

from probrt.exporter.export import export
from probrt.exporter.plan import ExportRequest
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import Calibration, Conformal, RiskPoint
from probrt.runtime.predict.predictor import load_predictor
from probrt.trainer import store

CALIBRATION = (
    Calibration(
        head="digit",
        temperature=1.1,
        conformal=[
            Conformal(coverage=0.9, method="lac", threshold=0.75),
            Conformal(coverage=0.9, method="aps", threshold=0.95),
        ],
        risk=[RiskPoint(threshold=0.5, kept=0.5, risk=0.1), RiskPoint(threshold=1.0, kept=1.0, risk=0.2)],
    ),
    Calibration(head="slant", scale=1.2, conformal=[Conformal(coverage=0.9, method="scaled", threshold=1.7)]),
    Calibration(head="ink", temperature=0.9),
)
# By the name under which answers.npz keeps them: what is asked of the bundle.
REQUESTS = {"bank": {}, "eight": {"samples": 8}, "mean": {"variant": "mean"}, "seed": {"seed": 7, "samples": 8}}


def write(folder: Path) -> None:
    """Writes model/, bundle/, answers.npz and shapes/1 into a new folder."""
    rng = np.random.default_rng(5)
    model = dataclasses.replace(BY_NAME["digits"].model(), calibration=CALIBRATION)
    training_images = rng.integers(0, 256, (8, 16, 16, 1)).astype(np.float32)
    store.save_model(model, folder / "model", images=training_images, provenance={"note": "golden"})
    with tempfile.TemporaryDirectory() as artifacts:
        request = ExportRequest(draws=16, precisions=("float32", "float16"), select=False)
        exported = export(folder / "model", Path(artifacts), request)
        shutil.copytree(exported.bundle.path, folder / "bundle")
    bundle = Bundle.open(folder / "bundle")
    arrays = {"images": rng.integers(0, 256, (4, 16, 16, 1)).astype(np.float32)}
    for name, request in REQUESTS.items():
        prediction = load_predictor(bundle, engine="litert", **request)(arrays["images"])
        for head, answer in prediction.heads.items():
            for quantity, values in answer.quantities.items():
                arrays[f"{name}/{head}.{quantity}"] = values
    np.savez_compressed(folder / "answers.npz", **arrays)
    (folder / "shapes" / "1").mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        write_graphs(folder / "shapes" / "1", Path(scratch))
    write_manifest(folder / "shapes" / "1")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
