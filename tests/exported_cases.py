"""Conformance cases on disk: saved, exported, and kept between runs under a digest of the sources that make them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cases import DIGIT, DRAWS, MAPPED, REPRESENTATIVE, Case, sides_of

from probrt.exporter.export import export
from probrt.exporter.formats import BY_PRECISION
from probrt.exporter.plan import ExportRequest
from probrt.exporter.reference import Reference
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.predict.trial import trust_files
from probrt.trainer import store
from probrt.trainer.calibration.novelty import add_novelty
from probrt.trainer.data import Examples
from probrt.trainer.model import Model
from probrt.trainer.variational.handlers import MeanHandler, use_handler

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".cache" / "conformance"
# Digests whose cases stay on disk: those of this tree and of the one before, for going back and forth.
_KEPT_DIGESTS = 2


@dataclass(frozen=True)
class ExportedCase:
    """A case on disk: its model as built and as loaded, the bundle, the reference and some images."""

    built: Model
    model: Model
    bundle: Bundle
    reference: Reference
    images: np.ndarray
    rounding: float


def load_case(case: Case) -> ExportedCase:
    """Returns the exported case; exports it only if no earlier run did from the same sources."""
    folder = CACHE / digest_sources() / case.name
    if not folder.is_dir():
        unfinished = folder.with_name(f".{case.name}-{os.getpid()}")
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            export_case(case, unfinished)
            with contextlib.suppress(OSError):  # another process was first
                unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        remove_old_digests()
    return open_case(case, folder)


def export_case(case: Case, folder: Path) -> None:
    """Saves and exports a case below `folder`."""
    model = case.model()
    images, _ = make_images(model)
    model = add_novelty(model, make_examples(model, 0), make_examples(model, 1), seed=0)
    # The model's own answers are the targets: coarser files are held to them.
    store.save_model(model, folder / "model", images=images, targets=make_targets(model, images), provenance={})
    precisions = tuple(BY_PRECISION) if case.name in REPRESENTATIVE else ("float32",)
    # The cases are opened with all noise as generated; test_tuned_files.py has tuned draws.
    request = ExportRequest(
        draws=DRAWS, precisions=precisions, select=case.name == "digits", tune=False, novelty_map=case.name in MAPPED
    )
    export(folder / "model", folder / "artifacts", request)


def open_case(case: Case, folder: Path) -> ExportedCase:
    """Opens what `export_case` wrote."""
    built = case.model()
    _, images = make_images(built)
    built, model = built.without_auxiliary(), store.load_model(folder / "model")[0].without_auxiliary()
    if case.name not in MAPPED:
        model = model.without_novelty_map()  # as the export, which was not asked for it
    bundle = Bundle.open(folder / "artifacts" / model.name)
    trust_files(bundle)
    return ExportedCase(built, model, bundle, Reference(model, bundle.manifest.heads), images, case.rounding)


def make_images(model: Model) -> tuple[np.ndarray, np.ndarray]:
    """Returns 8 images to keep with a model and 3 to check its files with, uniform noise over the input's range."""
    rng = np.random.default_rng(5)
    low, high = model.input.range or (-1.0, 1.0)
    kept, checked = (rng.uniform(low, high, (count, *sides_of(model.input))).astype(np.float32) for count in (8, 3))
    return kept, checked


def make_examples(model: Model, seed: int) -> Examples:
    """Returns 60 smooth random images, over a part of the input's range: noise is new to a model that learns them."""
    rng = np.random.default_rng(seed)
    low, high = model.input.range or (-1.0, 1.0)
    levels = rng.uniform(0.2, 0.8, (60, *[1] * len(sides_of(model.input)[:-1]), sides_of(model.input)[-1]))
    images = levels + 0.1 * rng.uniform(-1, 1, (60, *sides_of(model.input)))
    return Examples(tuple(map(str, range(60))), (low + (high - low) * images).astype(np.float32), {})


def make_targets(model: Model, images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the digits head's likeliest classes as targets, missing where another class is nearly as likely.

    An untrained model gives all classes nearly the same probability, and int8 may rightly prefer another one.
    """
    with use_handler(MeanHandler()):
        moments = model.moments(images)
    targets = {}
    for head in model.heads:
        if head.name == DIGIT.name:
            mean = moments[head.name].mean.numpy()
            ranked = np.sort(mean, axis=-1)
            is_clear = ranked[:, -1] - ranked[:, -2] > 2 * BY_PRECISION["int8"].tolerance
            targets[head.name] = np.where(is_clear, mean.argmax(-1), head.missing_target())
    return targets


def digest_sources() -> str:
    """Returns a digest of everything that an exported case depends on: the packages, the cases, the pins, Python."""
    digest = hashlib.sha256(f"{sys.version} {platform.machine()}".encode())
    sources = [path for package in ("runtime", "trainer", "exporter") for path in (ROOT / package).rglob("*.py")]
    for path in [*sorted(sources), ROOT / "tests" / "cases.py", Path(__file__), ROOT / "constraints.txt"]:
        digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()[:20]


def remove_old_digests() -> None:
    """Removes all but the newest digests' cases."""
    folders = sorted(CACHE.iterdir(), key=lambda folder: folder.stat().st_mtime, reverse=True)
    for folder in folders[_KEPT_DIGESTS:]:
        shutil.rmtree(folder, ignore_errors=True)
