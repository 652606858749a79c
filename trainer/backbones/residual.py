"""A residual network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from probrt.trainer.backbones.base import ConvBackbone, Positive, Stage, Widths, check_rank
from probrt.trainer.layers.weight_settings import WeightSettings


class Residual(ConvBackbone, frozen=True, kw_only=True, tag="residual"):
    """Residual blocks of two convolutions (He et al. 2016), each stage after the first with stride 2; 1-D to 3-D.

    widths: filters per stage. blocks: per stage.
    """

    widths: Widths = (32, 64, 128)
    blocks: Positive = 2

    def stages(self, images: keras.KerasTensor, weights: WeightSettings) -> Mapping[str, Stage]:
        check_rank(images, "residual", (1, 2, 3))
        features = self.convolve(self.prepare_images(images), weights, self.widths[0], "stem")
        stages = {}
        for level, width in enumerate(self.widths, start=1):
            for block in range(1, self.blocks + 1):
                strides = 2 if level > 1 and block == 1 else 1
                features = self._block(features, weights, width, f"stage{level}_block{block}", strides)
            stages[f"stage{level}"] = Stage(features, 2 ** (level - 1))
        return stages

    def _block(self, features: Any, weights: WeightSettings, width: int, name: str, strides: int) -> Any:
        inner = self.convolve(features, weights, width, f"{name}_conv1", strides=strides)
        inner = self.convolve(inner, weights, width, f"{name}_conv2", activated=False)
        if strides > 1 or features.shape[-1] != width:
            rank = len(features.shape) - 2
            features = weights.conv(rank, width, 1, f"{name}_shortcut", strides=strides)(features)
        return self.activate(keras.layers.Add(name=f"{name}_add")([features, inner]), name)
