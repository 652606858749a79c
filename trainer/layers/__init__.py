"""Probabilistic Keras 3 layers."""

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
