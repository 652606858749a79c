"""The SavedModel of a bundle."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from probrt.exporter.exportable import Exportable
from probrt.exporter.signatures import make_signatures
from probrt.exporter.stored_draws import store_draws
from probrt.runtime.bundle.manifest import PosteriorRecord


def write_saved_model(model: Exportable, posterior: PosteriorRecord | None, folder: Path) -> None:
    """Writes saved_model.pb and variables/ with every signature into an existing folder."""
    module = tf.Module()
    # Only the variables: if the module tracked the Keras model, its own functions would be saved too.
    module.parameters = [variable.value for member in model.members for variable in member.network.variables]
    module.tuned_noise = list(model.tuned.noise.values()) if model.tuned else []
    stored = store_draws(model, posterior.seed, posterior.order[: posterior.samples]) if posterior else None
    module.bank = stored.variables if stored else []
    signatures = make_signatures(model, posterior, stored)
    for name, function in signatures.items():
        setattr(module, name, function)
    tf.saved_model.save(module, folder, signatures=signatures)
    # Each save writes it with random content, and nothing reads it.
    (folder / "fingerprint.pb").unlink(missing_ok=True)
