"""Images and volumes: found, decoded, and batched."""

from probrt.runtime.images.decode import read_image

__all__ = ["read_image"]
