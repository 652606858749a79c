"""A plain stack of convolutions."""

from __future__ import annotations

from collections.abc import Mapping

import keras

from probrt.trainer.backbones.base import ConvBackbone, Positive, Stage, Widths, space_of
from probrt.trainer.layers.resampling import MaxPool
from probrt.trainer.layers.weight_settings import WeightSettings


class ConvStack(ConvBackbone, frozen=True, kw_only=True, tag="conv"):
    """Stages of same-padded convolutions, each but the first begun by a 2-wide max-pool; 1-D, 2-D and 3-D.

    widths: filters per stage. depth: convolutions per stage.
    """

    widths: Widths = (32, 64, 128)
    depth: Positive = 1

    def stages(self, images: keras.KerasTensor, weights: WeightSettings) -> Mapping[str, Stage]:
        space_of(images, "conv", (1, 2, 3))
        features, found = self.entered(images), {}
        for number, width in enumerate(self.widths, start=1):
            if number > 1:
                features = MaxPool(name=f"stage{number}_pool")(features)
            for conv in range(1, self.depth + 1):
                features = self.convolved(features, weights, width, f"stage{number}_conv{conv}")
            found[f"stage{number}"] = Stage(features, 2 ** (number - 1))
        return found
