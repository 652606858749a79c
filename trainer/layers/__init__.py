"""Probabilistic Keras 3 layers."""

from probrt.trainer.layers.conv import Conv1D, Conv2D, Conv3D
from probrt.trainer.layers.dense import Dense

__all__ = ["Conv1D", "Conv2D", "Conv3D", "Dense"]
