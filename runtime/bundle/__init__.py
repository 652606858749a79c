"""Reads a bundle on disk: its manifest, its files, and the checks of both."""

from probrt.runtime.bundle.bundle import Bundle

__all__ = ["Bundle"]
