"""Dense layers, for feature vectors."""

from __future__ import annotations

from collections.abc import Mapping

import keras

from probrt.trainer.backbones.base import ConvBackbone, Normalisation, Stage, Widths, check_rank
from probrt.trainer.layers.weight_settings import WeightSettings


class DenseStack(ConvBackbone, frozen=True, kw_only=True, tag="dense"):
    """Dense layers over feature vectors [features]; `kernel` has no meaning here.

    widths: units per layer, each a stage.
    """

    widths: Widths = (64, 64)
    normalisation: Normalisation = "none"

    def stages(self, images: keras.KerasTensor, weights: WeightSettings) -> Mapping[str, Stage]:
        check_rank(images, "dense", (0,))
        features, stages = images, {}
        for level, width in enumerate(self.widths, start=1):
            features = self.convolve(features, weights, width, f"stage{level}_dense")
            stages[f"stage{level}"] = Stage(features)
        return stages
