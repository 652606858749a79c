"""A backbone that the user's own function builds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import keras
import msgspec

from probrt.runtime.errors import ConfigError, one_line
from probrt.runtime.functions import load_function
from probrt.trainer.backbones.base import Backbone, Stage
from probrt.trainer.layers.weight_settings import WeightSettings


class Custom(Backbone, frozen=True, kw_only=True, tag="custom"):
    """A function that builds the features: `function(images, weights, **arguments)`.

    images: the scaled images, a Keras tensor [batch, *space, channels]. weights: the [weights] of the config, whose
    `conv(rank, filters, kernel, name)` makes layers with these settings. Returns the features, a Keras tensor, or
    {stage name: features}, of which the last feeds the heads. A saved model loads only layers that Keras or probrt
    knows.

    function: module:function; the module lies beside the config, or is installed.
    arguments: of the function, as they are.
    """

    function: str
    arguments: dict[str, Any] = {}
    folder: str = ""

    def resolve_paths(self, folder: Path) -> Self:
        return msgspec.structs.replace(self, folder=str(folder.resolve()))

    def stages(self, images: keras.KerasTensor, weights: WeightSettings) -> Mapping[str, Stage]:
        built = self._load_function()(images, weights, **self.arguments)
        named = built if isinstance(built, Mapping) else {"features": built}
        stages = {}
        for name, features in named.items():
            if not isinstance(features, keras.KerasTensor):
                raise ConfigError(
                    f"backbone.function: {self.function} gives a {type(features).__name__}, no Keras tensor"
                )
            sides = images.shape[1:2] + features.shape[1:2]
            pooled = len(features.shape) < 3 or None in sides
            stages[name] = Stage(features, 1 if pooled else round(sides[0] / sides[1]))
        return stages

    def _load_function(self) -> Any:
        try:
            return load_function(self.function, Path(self.folder) if self.folder else Path.cwd())
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(
                f"backbone.function: {self.function}: no such function ({one_line(error)}); name it as module:function"
            ) from None
