"""Backbones: the shared part of a network, from raw images to named stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probrt.trainer.backbones.base import Backbone, Stage
from probrt.trainer.backbones.conv import ConvStack
from probrt.trainer.backbones.custom import Custom
from probrt.trainer.backbones.dense import DenseStack
from probrt.trainer.backbones.pretrained import Pretrained
from probrt.trainer.backbones.residual import Residual
from probrt.trainer.backbones.unet import UNet
from probrt.trainer.extensions import ExtensionPoint
from probrt.trainer.layers.weight_settings import WeightSettings

__all__ = [
    "BACKBONES",
    "AnyBackbone",
    "Backbone",
    "ConvStack",
    "Custom",
    "DenseStack",
    "Pretrained",
    "Residual",
    "Stage",
    "UNet",
    "WeightSettings",
]

BACKBONES = ExtensionPoint("backbone", Backbone, (ConvStack, DenseStack, Residual, UNet, Pretrained, Custom))
if TYPE_CHECKING:
    AnyBackbone = Backbone
else:
    AnyBackbone = BACKBONES.field_type
