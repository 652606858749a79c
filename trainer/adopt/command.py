"""`probrt adopt`: from a legacy model and its weights to a model directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import ConfigError
from probrt.trainer.adopt.legacy import build_legacy_model, load_legacy_weights
from probrt.trainer.adopt.network import convert_network
from probrt.trainer.heads import AnyHead
from probrt.trainer.layers.split import HeadSplit
from probrt.trainer.model import Model
from probrt.trainer.store import save_model


def adopt(
    builder: str,
    weights: Path,
    folder: Path,
    *,
    name: str,
    input: Input,
    heads: Sequence[AnyHead],
    images: np.ndarray,
) -> Model:
    """Writes a model directory for a legacy model, whose outputs are the channels of the heads, in their order.

    builder: `module:function`, called without arguments; returns the tf_keras model (Functional or Sequential).
    weights: the model's `save_weights` file. images: some raw inputs [count, *input.shape], for checks at export.
    Raises ConfigError if the model has a part that cannot be adopted, DataError if the weights do not load.
    """
    legacy = build_legacy_model(builder)
    load_legacy_weights(legacy, weights)
    converted = convert_network(legacy)
    split = HeadSplit([(head.name, head.channels, int(head.per_position)) for head in heads], name="heads")
    channels = converted.output_shape[-1]
    if channels != split.channels:
        raise ConfigError(f"{builder}: the model gives {channels} channels, the heads need {split.channels}")
    if list(converted.input_shape[1:]) != list(input.shape):
        raise ConfigError(f"{builder}: the model takes {list(converted.input_shape[1:])}, the input says {input.shape}")
    network = keras.Model(converted.input, split(_add_position(converted.output)), name="network")
    model = Model(name, input, tuple(heads), network)
    save_model(model, folder, images=images, provenance={"adopted": builder})
    return model


def _add_position(outputs: Any) -> Any:
    """Returns outputs [batch, channels] as [batch, 1, channels], because the split needs a position; others stay."""
    return outputs if len(outputs.shape) > 2 else keras.layers.Reshape((1, outputs.shape[-1]))(outputs)
