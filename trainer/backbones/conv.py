"""A stack of convolutions."""

from __future__ import annotations

from collections.abc import Mapping

import keras

from probrt.trainer.backbones.base import ConvBackbone, Positive, Stage, Widths, check_rank, choose_widths
from probrt.trainer.layers.resampling import MaxPool
from probrt.trainer.layers.weight_settings import WeightSettings


class ConvStack(ConvBackbone, frozen=True, kw_only=True, tag="conv"):
    """Stages of same-padded convolutions, each after the first behind a 2-wide max-pool; 1-D, 2-D and 3-D.

    widths: filters per stage; by default chosen by the size of the input, 32, 64, 128 up to 32 pixels.
    depth: convolutions per stage. residual: adds its input to each convolution after the first of a stage (He et al.
        2016).
    """

    widths: Widths | None = None
    depth: Positive = 2
    residual: bool = True

    def stages(self, images: keras.KerasTensor, weights: WeightSettings) -> Mapping[str, Stage]:
        check_rank(images, "conv", (1, 2, 3))
        features, stages = self.prepare_images(images), {}
        for level, width in enumerate(self.widths or choose_widths(images.shape[1:-1]), start=1):
            if level > 1:
                features = MaxPool(name=f"stage{level}_pool")(features)
            for conv in range(1, self.depth + 1):
                name = f"stage{level}_conv{conv}"
                convolved = self.convolve(features, weights, width, name)
                skips = self.residual and conv > 1
                features = keras.layers.Add(name=f"{name}_add")([features, convolved]) if skips else convolved
            stages[f"stage{level}"] = Stage(features, 2 ** (level - 1))
        return stages
