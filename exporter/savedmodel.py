"""The SavedModel of a bundle."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from probrt.exporter.signatures import Signatures
from probrt.runtime.bundle.manifest import PosteriorRecord
from probrt.trainer.model import Model


def save(model: Model, posterior: PosteriorRecord, folder: Path) -> None:
    """Writes saved_model.pb and variables/ with every signature into an existing folder."""
    module = tf.Module()
    # The variables alone: tracking the Keras model would write its own functions beside ours.
    module.parameters = [variable.value for member in model.members for variable in member.network.variables]
    signatures = Signatures(model, posterior).all()
    for name, function in signatures.items():
        setattr(module, name, function)
    tf.saved_model.save(module, folder, signatures=signatures)
    # Written for each save with a random content; nothing reads it.
    (folder / "fingerprint.pb").unlink(missing_ok=True)
