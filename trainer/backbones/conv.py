"""A plain stack of convolutions."""

from __future__ import annotations

from collections.abc import Mapping

import keras

from probrt.trainer.backbones.base import ConvBackbone, Positive, Stage, Widths, check_rank
from probrt.trainer.layers.resampling import MaxPool
from probrt.trainer.layers.weight_settings import WeightSettings


class ConvStack(ConvBackbone, frozen=True, kw_only=True, tag="conv"):
    """Stages of same-padded convolutions, each after the first behind a 2-wide max-pool; 1-D, 2-D and 3-D.

    widths: filters per stage. depth: convolutions per stage.
    """

    widths: Widths = (32, 64, 128)
    depth: Positive = 1

    def stages(self, images: keras.KerasTensor, weights: WeightSettings) -> Mapping[str, Stage]:
        check_rank(images, "conv", (1, 2, 3))
        features, stages = self.prepare_images(images), {}
        for level, width in enumerate(self.widths, start=1):
            if level > 1:
                features = MaxPool(name=f"stage{level}_pool")(features)
            for conv in range(1, self.depth + 1):
                features = self.convolve(features, weights, width, f"stage{level}_conv{conv}")
            stages[f"stage{level}"] = Stage(features, 2 ** (level - 1))
        return stages
