"""Writes the directory of a trained model, with a part of its training examples and the versions that made it."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np

from probrt.trainer.data import Examples
from probrt.trainer.model import Model
from probrt.trainer.store import save_model

# How many training images the model directory holds, for checks at export.
_KEPT_IMAGES = 512
_PACKAGES = ("probrt", "tensorflow", "keras", "tensorflow-probability", "numpy", "pillow")


def read_versions() -> dict[str, str]:
    """Returns the versions of the packages that a training depends on, by name."""
    return {name: importlib.metadata.version(name) for name in _PACKAGES}


def save_trained(model: Model, out: Path, train: Examples, provenance: dict[str, Any], card: str = "") -> None:
    """Writes a model directory that keeps training examples, spread evenly over all of them.

    provenance: what model.json states of the model's origin. card: the model card in Markdown.
    """
    rows = np.linspace(0, len(train) - 1, min(_KEPT_IMAGES, len(train))).astype(int)
    targets = {name: values[rows] for name, values in train.targets.items()}
    save_model(model, out, images=train.images[rows], targets=targets, provenance=provenance, card=card)
