"""Probabilistic Keras 3 layers."""

# The modules that only register layers: a saved model of any of them loads wherever this package is imported.
from probrt.trainer.layers import append_one, coordinates, dropout, normalisation, resampling, split  # noqa: F401
from probrt.trainer.layers.conv import Conv1D, Conv2D, Conv3D
from probrt.trainer.layers.dense import Dense
from probrt.trainer.layers.depthwise import DepthwiseConv2D, SeparableConv2D
from probrt.trainer.layers.transpose import Conv1DTranspose, Conv2DTranspose, Conv3DTranspose

__all__ = [
    "Conv1D",
    "Conv1DTranspose",
    "Conv2D",
    "Conv2DTranspose",
    "Conv3D",
    "Conv3DTranspose",
    "Dense",
    "DepthwiseConv2D",
    "SeparableConv2D",
]
