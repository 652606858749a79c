"""What the model itself says, draw by draw: the yardstick of every exported file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import tensorflow as tf

from probrt.exporter.graphs import mean_outputs
from probrt.runtime.bundle.manifest import HeadRecord
from probrt.runtime.predict.combine import combine_chunks
from probrt.trainer.model import Model
from probrt.trainer.variational.handlers import DrawHandler, MeanHandler, use_handler

Outputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class Reference:
    """The Keras model under the handlers of an export, its draws combined in float64."""

    model: Model
    heads: Sequence[HeadRecord]

    def mean(self, images: np.ndarray) -> Outputs:
        """`mean` and `aleatoric` of every head at the posterior mean."""
        return {name: value.numpy() for name, value in self._at_mean(images).items()}

    def draws(self, images: np.ndarray, seed: int, indices: Sequence[int]) -> Outputs:
        """All four quantities of every head over draws (seed, index)."""
        combiners = [combine_chunks(head) for head in self.heads]
        for answer in self.each(images, seed, indices):
            for head, combiner in zip(self.heads, combiners, strict=True):
                alone = {**answer, f"{head.name}.epistemic": np.zeros_like(answer[f"{head.name}.aleatoric"])}
                combiner.add(alone, 1)
        return {
            f"{combiner.head.name}.{quantity}": values
            for combiner in combiners
            for quantity, values in combiner.combine().items()
        }

    def each(self, images: np.ndarray, seed: int, indices: Sequence[int]) -> list[Outputs]:
        """`mean` and `aleatoric` of every head under each draw."""
        return [
            {
                name: value.numpy()
                for name, value in self._at_draw(
                    images, tf.constant(seed, tf.int32), tf.constant(index, tf.int32)
                ).items()
            }
            for index in indices
        ]

    @cached_property
    def _at_mean(self) -> tf.types.experimental.PolymorphicFunction:
        @tf.function(reduce_retracing=True, autograph=False)
        def at_mean(images: tf.Tensor) -> dict[str, tf.Tensor]:
            with use_handler(MeanHandler()):
                return mean_outputs(self.model, images)

        return at_mean

    @cached_property
    def _at_draw(self) -> tf.types.experimental.PolymorphicFunction:
        @tf.function(reduce_retracing=True, autograph=False)
        def at_draw(images: tf.Tensor, seed: tf.Tensor, index: tf.Tensor) -> dict[str, tf.Tensor]:
            with use_handler(DrawHandler(seed, index)):
                return mean_outputs(self.model, images)

        return at_draw
