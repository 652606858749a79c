"""Any network of keras.applications, with its trained weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import keras
import msgspec
import numpy as np
import tensorflow as tf
from msgspec import Meta

from probrt.runtime.errors import ConfigError, one_line
from probrt.trainer.backbones.base import Backbone, Stage, check_rank
from probrt.trainer.keras_internals import call_layers
from probrt.trainer.layers.from_keras import to_bayesian
from probrt.trainer.layers.weight_settings import WeightSettings
from probrt.trainer.variational.estimators import ESTIMATORS


class Pretrained(Backbone, frozen=True, kw_only=True, tag="keras"):
    """A network of keras.applications by its name, without its classifier; 2-D images of three channels.

    model: such as "MobileNetV2" or "EfficientNetB0". weights: "none", "imagenet" (fetched by Keras), or a file,
        relative to the config; it must change every kernel. frozen: the fit changes the Bayesian layers alone.
    bayesian_last: the number of last layers that become Bayesian around their weights (MOPED), with the posterior
        and the estimator of [weights]. delta: their standard deviation as a share of each weight.
    taps: names of layers that are further stages, for heads that name one.
    """

    model: str
    weights: str = "none"
    frozen: bool = False
    bayesian_last: Annotated[int, Meta(ge=0)] = 0
    delta: Annotated[float, Meta(gt=0)] = 0.1
    taps: tuple[str, ...] = ()

    def resolve_paths(self, folder: Path) -> Self:
        if self.weights in ("none", "imagenet"):
            return self
        return msgspec.structs.replace(self, weights=str(folder / self.weights))

    def stages(self, images: keras.KerasTensor, weights: WeightSettings) -> Mapping[str, Stage]:
        check_rank(images, "keras", (2,))
        if images.shape[-1] != 3:
            raise ConfigError(
                'backbone: keras networks take three channels: set input.colour = "rgb" and shape [.., .., 3]'
            )
        network = self._make_network(list(images.shape[1:]))
        names = [layer.name for layer in network.layers]
        for tap in self.taps:
            if tap not in names:
                raise ConfigError(f"backbone.taps: {self.model} has no layer {tap!r}; it has {', '.join(names)}")
        if self.bayesian_last:
            network = to_bayesian(
                network,
                last=self.bayesian_last,
                delta=self.delta,
                posterior=weights.posterior,
                estimator=weights.estimator if weights.estimator in ESTIMATORS else "auto",
            )
        wanted = {**{tap: network.get_layer(tap).output for tap in self.taps}, "top": network.output}
        tapped = keras.Model(network.input, wanted)
        # Its layers become nodes of the whole network, so that the part that all draws share can run once.
        features = call_layers(tapped, Prepared(self.model, name="prepared")(images))
        return {name: Stage(tensor, _compute_stride(images, tensor)) for name, tensor in features.items()}

    def _make_network(self, shape: list[int | None]) -> keras.Model:
        make = list_applications().get(self.model)
        if make is None:
            raise ConfigError(f"backbone.model: no network {self.model!r}; keras has {', '.join(list_applications())}")
        try:
            network = make(
                include_top=False, weights="imagenet" if self.weights == "imagenet" else None, input_shape=shape
            )
        except (ValueError, OSError) as error:
            what = "weights" if "etch" in str(error) else "model"
            raise ConfigError(f"backbone.{what}: {self.model} for images {shape}: {one_line(error)[:300]}") from None
        if self.weights not in ("none", "imagenet"):
            load_weights(network, Path(self.weights))
        if self.frozen:
            for layer in network.layers:
                layer.trainable = False
        return network


@keras.saving.register_keras_serializable(package="probrt")
class Prepared(keras.Layer):
    """Transforms images in [0, 1] to the input that a network of keras.applications was trained on.

    model: the network's name, whose own `preprocess_input` takes values from 0 to 255.
    """

    def __init__(self, model: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model

    def call(self, images: tf.Tensor) -> tf.Tensor:
        module = getattr(keras.applications, list_applications()[self.model].__module__.rsplit(".", 1)[1])
        return module.preprocess_input(images * 255.0)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "model": self.model}


def list_applications() -> dict[str, Any]:
    """Returns the constructors of keras.applications by name."""
    members = vars(keras.applications)
    return {name: make for name, make in sorted(members.items()) if name[0].isupper() and callable(make)}


def load_weights(network: keras.Model, file: Path) -> None:
    """Loads a weights file; raises ConfigError if it does not fit, or leaves a kernel unchanged."""
    before = {weight.path: np.array(weight) for weight in network.weights if "kernel" in weight.name}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the check below finds what did not load
            network.load_weights(file)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"backbone.weights: {file}: {one_line(error)[:300]}") from None
    # Loading by name can succeed and change nothing.
    by_path = {weight.path: weight for weight in network.weights}
    same = [path for path, weight in by_path.items() if path in before and np.array_equal(before[path], weight)]
    if same:
        raise ConfigError(
            f"backbone.weights: {file}: {len(same)} of {len(before)} kernels were not changed, {same[0]} among them: "
            "the file is of another network"
        )


def _compute_stride(images: keras.KerasTensor, features: keras.KerasTensor) -> int:
    """Returns the pixels that each position spans; 1 where a side is not known."""
    sides = images.shape[1], features.shape[1]
    return 1 if None in sides or len(features.shape) < 3 else round(sides[0] / sides[1])
