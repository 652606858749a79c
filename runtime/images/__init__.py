"""Finds, decodes and batches images and volumes."""

from probrt.runtime.images.decode import read_image

__all__ = ["read_image"]
