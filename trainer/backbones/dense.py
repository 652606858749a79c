"""Dense layers, for feature vectors."""

from __future__ import annotations

from collections.abc import Mapping

import keras

from probrt.trainer.backbones.base import ConvBackbone, Stage, Widths, space_of
from probrt.trainer.layers.weight_settings import WeightSettings


class DenseStack(ConvBackbone, frozen=True, kw_only=True, tag="dense"):
    """Dense layers over feature vectors [features]; `kernel` has no meaning here.

    widths: units per layer, each a stage.
    """

    widths: Widths = (64, 64)

    def stages(self, images: keras.KerasTensor, weights: WeightSettings) -> Mapping[str, Stage]:
        space_of(images, "dense", (0,))
        features, found = images, {}
        for number, width in enumerate(self.widths, start=1):
            features = self.convolved(features, weights, width, f"stage{number}_dense")
            found[f"stage{number}"] = Stage(features)
        return found
