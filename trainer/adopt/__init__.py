"""Adopts models of TFP's own layers, made in the legacy Keras, as probrt models.

Importing TFP's layers needs the legacy Keras package, tf_keras, which can be loaded beside Keras 3 in one process.
"""

from __future__ import annotations

from probrt.trainer.adopt.card import AdoptionCard, load_card
from probrt.trainer.adopt.command import adopt

__all__ = ["AdoptionCard", "adopt", "load_card"]
