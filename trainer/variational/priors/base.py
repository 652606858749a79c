"""The interface of priors."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import tensorflow as tf
from msgspec import Struct

from probrt.trainer.variational.parameters import Parameter, Parameters


class Prior(Struct, frozen=True, forbid_unknown_fields=True, tag_field="name"):
    """Base class of priors; most have no parameters of their own.

    fits_weight: whether the prior adapts to the weight that it is over, so that it cannot be over a factor of it.
    """

    fits_weight: ClassVar[bool] = False

    @property
    def title(self) -> str:
        """The family's name, as messages write it."""
        return type(self).__name__.removesuffix("Prior")

    @property
    def support(self) -> tuple[float, float]:
        """The interval (low, high) outside which the density is 0."""
        return -math.inf, math.inf

    def parameters(self, shape: tuple[int, ...], fan_in: int) -> dict[str, Parameter]:
        """Returns the variables of the prior itself, such as a trained scale, by name; most have none."""
        return {}

    def anchor(self, mean: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the values of the prior's parameters that centre it on a weight's mean; most have none."""
        del mean
        return {}

    def distribution(self, parameters: Parameters, shape: tuple[int, ...]) -> Any:
        """Returns the TFP distribution, with a batch shape that broadcasts with the weight's."""
        raise TypeError(f"{type(self).__name__} must define distribution")
