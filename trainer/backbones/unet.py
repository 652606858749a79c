"""A U-Net: maps of the input's size."""

from __future__ import annotations

from collections.abc import Mapping

import keras

from probrt.trainer.backbones.base import ConvBackbone, Normalisation, Positive, Stage, Widths, check_rank
from probrt.trainer.layers.resampling import MaxPool, UpTo
from probrt.trainer.layers.weight_settings import WeightSettings


class UNet(ConvBackbone, frozen=True, kw_only=True, tag="unet"):
    """An encoder and a decoder with skip connections (Ronneberger et al. 2015), in 1-D, 2-D and 3-D.

    The last stage has the input's size, whatever it is: halving rounds an odd side up, doubling cuts off the
    rest. Stages: encoder1 …, bottom, decoder…, decoder1.
    widths: filters per level, the last the bottom's. depth: convolutions per level.
    """

    widths: Widths = (16, 32, 64)
    depth: Positive = 2
    normalisation: Normalisation = "none"

    def stages(self, images: keras.KerasTensor, weights: WeightSettings) -> Mapping[str, Stage]:
        check_rank(images, "unet", (1, 2, 3))
        features, stages, skips = self.prepare_images(images), {}, []
        for level, width in enumerate(self.widths[:-1], start=1):
            for conv in range(1, self.depth + 1):
                features = self.convolve(features, weights, width, f"encoder{level}_conv{conv}")
            stages[f"encoder{level}"] = Stage(features, 2 ** (level - 1))
            skips.append(features)
            features = MaxPool(padding="same", name=f"encoder{level}_pool")(features)
        for conv in range(1, self.depth + 1):
            features = self.convolve(features, weights, self.widths[-1], f"bottom_conv{conv}")
        stages["bottom"] = Stage(features, 2 ** len(skips))
        for level in range(len(skips), 0, -1):
            skip = skips[level - 1]
            larger = UpTo(name=f"decoder{level}_up")([features, skip])
            features = keras.layers.Concatenate(name=f"decoder{level}_skip")([skip, larger])
            for conv in range(1, self.depth + 1):
                features = self.convolve(features, weights, self.widths[level - 1], f"decoder{level}_conv{conv}")
            stages[f"decoder{level}"] = Stage(features, 2 ** (level - 1))
        return stages
