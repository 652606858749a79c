"""A bundle on disk: its manifest, its files, and what they may hold."""

from probrt.runtime.bundle.bundle import Bundle

__all__ = ["Bundle"]
