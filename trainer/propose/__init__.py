"""Proposes a training config for a folder of images."""

from __future__ import annotations
