"""Dropout of whole channels, while fitting and, if `in_draws`, in draws."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from probrt.trainer.variational import philox
from probrt.trainer.variational.estimators import TrainingHandler
from probrt.trainer.variational.handlers import active_handler
from probrt.trainer.variational.posteriors.dropout import DropoutPosterior
from probrt.trainer.variational.priors.families import NormalPrior
from probrt.trainer.variational.random_weight import RandomWeight, make_noise_id


@keras.saving.register_keras_serializable(package="probrt")
class ChannelDropout(keras.Layer):
    """Sets a share of the channels of [batch, *space, channels] to 0 and scales up the rest.

    While fitting, each example has a mask of its own.
    rate: share of dropped channels, above 0 and below 1.
    in_draws: every draw has one mask, shared by batch and positions, so that a draw is one network (Gal and
        Ghahramani 2016); else draws and the mean drop nothing.
    """

    def __init__(self, rate: float, in_draws: bool = False, noise_ids: dict[str, int] | None = None, **kw: Any) -> None:
        super().__init__(**kw)
        if not 0 < rate < 1:
            raise ValueError(f"{self.name}: rate is {rate}, must be above 0 and below 1")
        self.rate, self.in_draws = rate, in_draws
        self.noise_ids = dict(noise_ids or {})
        self.random_weights: list[RandomWeight] = []

    def build(self, input_shape: tuple[int, ...]) -> None:
        self.posterior = DropoutPosterior(self.rate)
        self.mask = RandomWeight(
            id=self.noise_ids.setdefault("mask", make_noise_id(self.name, "mask")),
            name=f"{self.name}/mask",
            shape=(input_shape[-1],),
            posterior=self.posterior,
            prior=NormalPrior(),
            parameters={
                "mean": self.add_weight(name="mean", shape=input_shape[-1:], initializer="ones", trainable=False)
            },
            prior_parameters={},
        )
        if self.in_draws:
            self.random_weights.append(self.mask)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        handler = active_handler()
        if isinstance(handler, TrainingHandler):
            channels = self.mask.shape[0]
            stream = philox.RowStream(handler.seed, self.mask.id, handler.step, handler.first_row, tf.shape(inputs)[0])
            mask = self.posterior.from_normal(philox.row_normals(stream, channels))
            mask = tf.reshape(mask, [-1, *[1] * (len(inputs.shape) - 2), channels])
        elif self.in_draws:
            mask = handler.value(self.mask)
        else:
            return inputs
        return inputs * tf.cast(mask, inputs.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        own = {"rate": self.rate, "in_draws": self.in_draws, "noise_ids": self.noise_ids}
        return {**super().get_config(), **own}
