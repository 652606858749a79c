"""Priors over weights, given by name and parameters; densities are TFP's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import tensorflow as tf
from msgspec import Meta, Struct

from probrt.trainer.posteriors import Parameter, Parameters


class Prior(Struct, frozen=True, forbid_unknown_fields=True, tag_field="name"):
    """What every prior states; most have no trained parameters."""

    def parameters(self, shape: tuple[int, ...], fan_in: int) -> dict[str, Parameter]:
        """Trained parameters of the prior itself (empirical Bayes)."""
        return {}

    def distribution(self, parameters: Parameters, shape: tuple[int, ...]) -> Any:
        """The TFP distribution, with a batch shape that broadcasts with the weight's."""
        raise TypeError(f"{type(self).__name__} states no distribution")


class Normal(Prior, frozen=True, tag="normal"):
    """Normal(loc, scale)."""

    loc: float = 0.0
    scale: Annotated[float, Meta(gt=0)] = 1.0

    def distribution(self, parameters: Parameters, shape: tuple[int, ...]) -> Any:
        import tensorflow_probability as tfp

        return tfp.distributions.Normal(self.loc, self.scale)


class LearnedNormal(Prior, frozen=True, tag="learned_normal"):
    """Normal(0, scale) with one trained scale per weight tensor (empirical Bayes).

    initial_scale: as a part of the He scale sqrt(2 / fan_in).
    """

    initial_scale: Annotated[float, Meta(gt=0)] = 1.0

    def parameters(self, shape: tuple[int, ...], fan_in: int) -> dict[str, Parameter]:
        start = math.log(self.initial_scale * math.sqrt(2.0 / fan_in))
        return {"log_scale": Parameter((), lambda shape: tf.fill(shape, tf.constant(start, tf.float32)))}

    def distribution(self, parameters: Parameters, shape: tuple[int, ...]) -> Any:
        import tensorflow_probability as tfp

        return tfp.distributions.Normal(0.0, tf.exp(parameters["log_scale"]))


AnyPrior = Normal | LearnedNormal


def prior(settings: Mapping[str, Any]) -> Prior:
    """The prior that a saved or configured record names; msgspec.ValidationError says what is wrong."""
    return msgspec.convert(settings, AnyPrior)
