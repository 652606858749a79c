"""A backbone: SqueezeNet v1.1 (Iandola et al. 2016) up to its last fire module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

_FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
# The mean red, green and blue of its training images, which were subtracted from them.
_MEANS = (123.68, 116.779, 103.939)


def features(images: Any, weights: Any, pretrained: bool) -> Any:
    """Computes feature maps [batch, height / 16, width / 16, 64] from images scaled to [0, 1].

    Args:
        images: [batch, height, width, channels] with one or three channels.
        weights: the config's `weights`, which make the one probabilistic layer on top.
        pretrained: uses ImageNet's weights and freezes them; otherwise the network starts from new weights.
    """
    stored = np.load(Path(__file__).parent / "data" / "squeezenet.npz") if pretrained else {}
    if images.shape[-1] == 1:
        images = keras.layers.Concatenate(name="rgb")([images] * 3)
    x = keras.layers.Rescaling(255.0, offset=[-mean for mean in _MEANS], name="centred")(images)
    x = _conv(x, stored, "conv1", 64, 3, 2)
    x = keras.layers.MaxPooling2D(3, 2, name="pool1")(x)
    for index, (squeezed, expanded) in enumerate(_FIRES, start=2):
        x = _conv(x, stored, f"fire{index}/squeeze1x1", squeezed, 1)
        sides = [_conv(x, stored, f"fire{index}/expand{k}x{k}", expanded, k) for k in (1, 3)]
        x = keras.layers.Concatenate(name=f"fire{index}_join")(sides)
        if index in (3, 5):
            x = keras.layers.MaxPooling2D(3, 2, name=f"pool{index}")(x)
    return keras.layers.ReLU(name="adapted_relu")(weights.conv(2, 64, 1, "adapted")(x))


def _conv(x: Any, stored: Any, name: str, filters: int, kernel: int, strides: int = 1) -> Any:
    layer = keras.layers.Conv2D(
        filters, kernel, strides, "same", activation="relu", name=name.replace("/", "_"), trainable=not stored
    )
    x = layer(x)
    if stored:
        kernel = stored[f"{name}/w"]
        # The channels of the first kernel are blue, green, red.
        layer.set_weights([kernel[:, :, ::-1] if name == "conv1" else kernel, stored[f"{name}/b"]])
    return x
