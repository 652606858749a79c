"""The Keras model evaluated draw by draw: every exported file is compared with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from probrt.exporter.exportable import Exportable
from probrt.exporter.formats import BY_PRECISION
from probrt.exporter.graphs import NamedTensors, name_moments, name_novelty
from probrt.runtime.bundle.manifest import NOVELTY, HeadRecord
from probrt.runtime.errors import ParityError
from probrt.runtime.predict.combine import combine_chunks
from probrt.trainer.heads import Moments
from probrt.trainer.variational.handlers import DrawHandler, MeanHandler, use_handler

NamedArrays = dict[str, npt.NDArray[Any]]  # by the bundle's names, `<head>.<quantity>` and `novelty.<quantity>`


@dataclass(frozen=True)
class Reference:
    """The model under the handlers of an export; its draws are combined in float64.

    Each method computes the features that all draws share once, and each draw from them. Files that use a wrong split
    of the network would agree with that, so `check_shared_features` compares it with the whole network.
    """

    model: Exportable
    heads: Sequence[HeadRecord]

    def evaluate_mean(self, images: npt.NDArray[Any]) -> NamedArrays:
        """Computes `mean` and `aleatoric` of every head, and the novelty, at the posterior mean."""
        return _to_arrays(self._mean_from(self._shared(images)))

    def evaluate_novelty(self, images: npt.NDArray[Any]) -> NamedArrays:
        """Computes the novelty by name; empty if the model has none."""
        answer = self.evaluate_mean(images) if self.model.novelty else {}
        return {name: values for name, values in answer.items() if name.startswith(f"{NOVELTY}.")}

    def evaluate_draws(self, images: npt.NDArray[Any], seed: int, indices: Sequence[int]) -> list[NamedArrays]:
        """Computes `mean` and `aleatoric` of every head under each draw (seed, index)."""
        features = self._shared(images)
        return [_to_arrays(self._draw_from(features, *self._name_draw(seed, index))) for index in indices]

    def combine_draws(
        self, images: npt.NDArray[Any], seed: int, indices: Sequence[int], with_novelty: bool = True
    ) -> NamedArrays:
        """Computes all quantities of every head over draws (seed, index), and the novelty at the posterior mean."""
        combiners = [combine_chunks(head) for head in self.heads]
        for draw in self.evaluate_draws(images, seed, indices):
            for combiner in combiners:
                # One draw has no spread.
                name = combiner.head.name
                combiner.add({**draw, f"{name}.epistemic": np.zeros_like(draw[f"{name}.aleatoric"])}, 1)
        answer = {
            f"{combiner.head.name}.{quantity}": values
            for combiner in combiners
            for quantity, values in combiner.combine().items()
        }
        return answer | (self.evaluate_novelty(images) if with_novelty else {})

    def check_shared_features(self, images: npt.NDArray[Any], seed: int | None) -> None:
        """Compares the shared features' answers with the whole network's, at the mean and in one draw of each member.

        seed: of that draw; None leaves it out.
        Raises ParityError with the first output that differs by more than float32 files may.
        """
        features = self._shared(images)
        self._compare("at the posterior mean", self._whole_mean(images), self._mean_from(features))
        if seed is not None and self.model.weights:
            for index in range(len(self.model.members)):
                draw = self._name_draw(seed, index)
                whole, shared = self._whole_draw(images, *draw), self._draw_from(features, *draw)
                self._compare(f"in draw ({seed}, {index})", whole, shared)

    def _name_draw(self, seed: int, index: int) -> tuple[tf.Tensor, tf.Tensor, dict[int, tf.Tensor]]:
        """Returns seed and index as tensors, so that a new draw does not trace a new graph, and any moved noise."""
        tuned = self.model.tuned
        noise = tuned.find_noise(seed, index) if tuned else {}
        moved = {id: tf.constant(values) for id, values in noise.items()}
        return tf.constant(seed, tf.int32), tf.constant(index, tf.int32), moved

    def _compare(self, where: str, whole: NamedTensors, shared: NamedTensors) -> None:
        answers = _to_arrays(shared)
        for name, expected in _to_arrays(whole).items():
            largest = np.max(np.abs(expected), where=np.isfinite(expected), initial=1.0)
            allowed = BY_PRECISION["float32"].tolerance * float(largest)
            # What is not finite is the files' check to report.
            if not np.allclose(answers[name], expected, rtol=0, atol=allowed, equal_nan=True):
                difference = float(np.abs(answers[name] - expected).max())
                raise ParityError(
                    f"{self.model.name}: {name} {where} differs by {difference:.2g}, allowed {allowed:.2g}, between "
                    "the whole network and its shared features; a layer before the random weights is not deterministic"
                )

    @cached_property
    def _shared(self) -> tf.types.experimental.PolymorphicFunction:
        return _compile(self.model.shared_features)

    @cached_property
    def _mean_from(self) -> tf.types.experimental.PolymorphicFunction:
        return _compile(
            _under_mean(lambda features: (self.model.moments_from(features), self.model.novelty_from(features)))
        )

    @cached_property
    def _draw_from(self) -> tf.types.experimental.PolymorphicFunction:
        return _compile(_under_draw(self.model.moments_from))

    @cached_property
    def _whole_mean(self) -> tf.types.experimental.PolymorphicFunction:
        return _compile(_under_mean(self.model.moments_and_novelty))

    @cached_property
    def _whole_draw(self) -> tf.types.experimental.PolymorphicFunction:
        return _compile(_under_draw(self.model.moments))


def _under_mean(
    evaluate: Callable[[Any], tuple[dict[str, Moments], dict[str, tf.Tensor]]],
) -> Callable[[Any], NamedTensors]:
    def evaluate_mean(inputs: Any) -> NamedTensors:
        with use_handler(MeanHandler()):
            moments, novelty = evaluate(inputs)
            return name_moments(moments) | name_novelty(novelty)

    return evaluate_mean


def _under_draw(
    evaluate: Callable[[Any], dict[str, Moments]],
) -> Callable[[Any, tf.Tensor, tf.Tensor, Any], NamedTensors]:
    def evaluate_draw(inputs: Any, seed: tf.Tensor, index: tf.Tensor, noise: dict[int, tf.Tensor]) -> NamedTensors:
        with use_handler(DrawHandler(seed, index, noise)):
            return name_moments(evaluate(inputs))

    return evaluate_draw


def _compile(function: Callable[..., Any]) -> Any:
    return tf.function(function, reduce_retracing=True, autograph=False)


def _to_arrays(outputs: NamedTensors) -> NamedArrays:
    return {name: value.numpy() for name, value in outputs.items()}
