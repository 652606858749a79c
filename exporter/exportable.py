"""What the exporter needs of a model: `trainer.model.Model` and `exporter.ensemble.Ensemble` both satisfy it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import tensorflow as tf

from probrt.runtime.bundle.manifest import Calibration, Input
from probrt.trainer.heads import AnyHead, Moments
from probrt.trainer.model import Model
from probrt.trainer.novelty.score import Novelty
from probrt.trainer.variational.handlers import Handler
from probrt.trainer.variational.random_weight import RandomWeight
from probrt.trainer.variational.tuned_draws import TunedDraws


class Exportable(Protocol):
    """One model, or several behind the interface of one. Images are raw values [batch, *input.shape]."""

    @property
    def name(self) -> str:
        """The bundle's name."""

    @property
    def input(self) -> Input:
        """What `images` holds."""

    @property
    def heads(self) -> tuple[AnyHead, ...]:
        """The output tasks."""

    @property
    def calibration(self) -> tuple[Calibration, ...]:
        """The calibration that the manifest states; temperature and scale already act in the moments."""

    @property
    def weights(self) -> list[RandomWeight]:
        """The random weights, once each."""

    @property
    def members(self) -> tuple[Model, ...]:
        """The trained models that it consists of."""

    @property
    def novelty(self) -> Novelty | None:
        """How the novelty of an image is computed; None if it is not."""

    @property
    def tuned(self) -> TunedDraws | None:
        """The draws whose noise this export has moved; None if it is all as generated."""

    @property
    def max_draws(self) -> int | None:
        """The number of draws that differ from each other; None if there is no bound."""

    @property
    def draws_in_graph(self) -> bool:
        """Whether a TFLite or ONNX graph can make the draws from a seed."""

    def positions(self, head: AnyHead) -> list[int | None]:
        """Returns the sides of a head's answers after the batch; none for a pooled head."""

    def shared_features(self, images: tf.Tensor) -> Any:
        """Computes the deterministic features that all draws share."""

    def moments(self, images: tf.Tensor) -> dict[str, Moments]:
        """Returns each head's calibrated moments under the active handler, from the whole network."""

    def moments_from(self, features: Any) -> dict[str, Moments]:
        """Returns each head's calibrated moments under the active handler, from shared features."""

    def moments_and_novelty(self, images: tf.Tensor) -> tuple[dict[str, Moments], dict[str, tf.Tensor]]:
        """Returns each head's moments, and the novelty, from one pass; use a handler of the posterior mean."""

    def novelty_from(self, features: Any) -> dict[str, tf.Tensor]:
        """Returns `score` and `p_value`, [batch], from shared features; use a handler of the posterior mean."""

    def combine_draws(self, features: Any, handlers: Sequence[Handler]) -> Mapping[str, Mapping[str, tf.Tensor]]:
        """Returns each head's quantities over the draws of some handlers, from shared features."""

    def constant_mean_handler(self) -> Handler:
        """Returns a handler that holds every random weight's posterior mean; call it outside a trace."""

    def constant_draw_handler(self, seed: int, index: int) -> Handler:
        """Returns a handler that holds every random weight's draw (seed, index); call it outside a trace."""

    def draw_handler(self, seed: tf.Tensor, index: tf.Tensor) -> Handler:
        """Returns the handler of draw (seed, index), int32 scalars; use it in the function that creates it."""

    def draw_handlers(self, seed: tf.Tensor | int, indices: Sequence[int], count: int) -> list[Handler]:
        """Returns handlers of `count` draws (seed, indices[i]); makes the noise of all draws at once."""
