"""Novelty: how far an image lies from the training images in feature space, and the conformal p-value of that."""

from __future__ import annotations
