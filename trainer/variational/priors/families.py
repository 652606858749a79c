"""Families of priors; densities are TFP's."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar

import tensorflow as tf
from msgspec import Meta, field

from probrt.trainer.variational.parameters import Parameter, Parameters, Positive, compute_he_scale, constant_start
from probrt.trainer.variational.priors.base import Prior

Probability = Annotated[float, Meta(gt=0, lt=1)]


class NormalPrior(Prior, frozen=True, tag="normal"):
    """Normal(loc, scale)."""

    loc: float = 0.0
    scale: Positive = 1.0

    def distribution(self, parameters: Parameters, shape: tuple[int, ...]) -> Any:
        return _tfd().Normal(self.loc, self.scale)


class LearnedNormalPrior(Prior, frozen=True, tag="learned_normal"):
    """Normal(0, scale) with one trained scale per weight tensor (empirical Bayes).

    initial_scale: as a part of the He scale sqrt(2 / fan_in).
    """

    fits_weight: ClassVar[bool] = True
    initial_scale: Positive = 1.0

    def parameters(self, shape: tuple[int, ...], fan_in: int) -> dict[str, Parameter]:
        return {"log_scale": Parameter((), constant_start(math.log(self.initial_scale * compute_he_scale(fan_in))))}

    def distribution(self, parameters: Parameters, shape: tuple[int, ...]) -> Any:
        return _tfd().Normal(0.0, tf.exp(parameters["log_scale"]))


class MopedPrior(Prior, frozen=True, tag="moped"):
    """Normal(anchor, scale) around a trained weight (MOPED, Krishnan, Subedar and Tickoo 2020).

    The anchor is the posterior mean at the layer's start; `to_bayesian` puts the trained weights in both.
    """

    fits_weight: ClassVar[bool] = True
    scale: Positive = 1.0

    def parameters(self, shape: tuple[int, ...], fan_in: int) -> dict[str, Parameter]:
        return {"anchor": Parameter(shape, constant_start(0.0), trainable=False)}

    def anchor(self, mean: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"anchor": mean}

    def distribution(self, parameters: Parameters, shape: tuple[int, ...]) -> Any:
        return _tfd().Normal(parameters["anchor"], self.scale)


class LaplacePrior(Prior, frozen=True, tag="laplace"):
    """Laplace(loc, scale)."""

    loc: float = 0.0
    scale: Positive = 1.0

    def distribution(self, parameters: Parameters, shape: tuple[int, ...]) -> Any:
        return _tfd().Laplace(self.loc, self.scale)


class ScaleMixturePrior(Prior, frozen=True, tag="scale_mixture"):
    """weight Normal(0, scale) + (1 - weight) Normal(0, narrow_scale) (Blundell et al. 2015, eq. 7)."""

    weight: Probability = 0.5
    scale: Positive = 1.0
    narrow_scale: Positive = 0.0025

    def distribution(self, parameters: Parameters, shape: tuple[int, ...]) -> Any:
        tfd = _tfd()
        weights = tfd.Categorical(probs=[self.weight, 1.0 - self.weight])
        return tfd.MixtureSameFamily(weights, tfd.Normal([0.0, 0.0], [self.scale, self.narrow_scale]))


class StudentTPrior(Prior, frozen=True, tag="student_t"):
    """Student's t with `df` degrees of freedom."""

    df: Positive = 3.0
    loc: float = 0.0
    scale: Positive = 1.0

    def distribution(self, parameters: Parameters, shape: tuple[int, ...]) -> Any:
        return _tfd().StudentT(self.df, self.loc, self.scale)


class CauchyPrior(Prior, frozen=True, tag="cauchy"):
    """Cauchy(loc, scale)."""

    loc: float = 0.0
    scale: Positive = 1.0

    def distribution(self, parameters: Parameters, shape: tuple[int, ...]) -> Any:
        return _tfd().Cauchy(self.loc, self.scale)


class HorseshoePrior(Prior, frozen=True, tag="horseshoe"):
    """Normal(0, scale times a half-Cauchy scale per weight) (Carvalho, Polson and Scott 2010).

    The half-Cauchy scales are integrated out; TFP's density is an approximation of its bounds.
    """

    scale: Positive = 1.0

    def distribution(self, parameters: Parameters, shape: tuple[int, ...]) -> Any:
        return _tfd().Horseshoe(self.scale)


class GammaPrior(Prior, frozen=True, tag="gamma"):
    """Gamma(concentration, rate), for positive weights."""

    concentration: Positive = 2.0
    rate: Positive = 2.0

    @property
    def support(self) -> tuple[float, float]:
        return 0.0, math.inf

    def distribution(self, parameters: Parameters, shape: tuple[int, ...]) -> Any:
        return _tfd().Gamma(self.concentration, self.rate)


class LogNormalPrior(Prior, frozen=True, tag="log_normal"):
    """The exponential of Normal(loc, scale), for positive weights."""

    loc: float = 0.0
    scale: Positive = 1.0

    @property
    def support(self) -> tuple[float, float]:
        return 0.0, math.inf

    def distribution(self, parameters: Parameters, shape: tuple[int, ...]) -> Any:
        return _tfd().LogNormal(self.loc, self.scale)


class UniformPrior(Prior, frozen=True, tag="uniform"):
    """Uniform on (low, high), for posteriors that stay inside."""

    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"the interval ({self.low}, {self.high}) is empty: low must be below high")

    @property
    def support(self) -> tuple[float, float]:
        return self.low, self.high

    def distribution(self, parameters: Parameters, shape: tuple[int, ...]) -> Any:
        return _tfd().Uniform(self.low, self.high)


class TfpPrior(Prior, frozen=True, tag="tfp"):
    """Any scalar TFP distribution by its class name and parameters.

    In a config: {name = "tfp", distribution = "Gumbel", parameters = {loc = 0.0, scale = 1.0}}.
    """

    kind: str = field(name="distribution")
    settings: dict[str, float] = field(name="parameters", default_factory=dict)

    def __post_init__(self) -> None:
        distribution = self._make_distribution()
        if distribution.event_shape.rank != 0 or distribution.batch_shape.rank != 0:
            raise ValueError(f"TFP's {self.kind} with {self.settings} is not over single numbers")

    @property
    def support(self) -> tuple[float, float]:
        bijector = self._make_distribution().experimental_default_event_space_bijector()
        ends = sorted(float(bijector.forward(end)) for end in (-1e9, 1e9))
        return (-math.inf if ends[0] <= -1e8 else ends[0]), (math.inf if ends[1] >= 1e8 else ends[1])

    def distribution(self, parameters: Parameters, shape: tuple[int, ...]) -> Any:
        return self._make_distribution()

    def _make_distribution(self) -> Any:
        kind = getattr(_tfd(), self.kind, None)
        if not isinstance(kind, type) or not issubclass(kind, _tfd().Distribution):
            raise ValueError(f"TFP has no distribution {self.kind!r}; use a class name such as 'Gumbel'")
        try:
            return kind(**self.settings)
        except (TypeError, ValueError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"TFP's {self.kind} refuses {self.settings}: {reason}") from None


def _tfd() -> Any:
    import tensorflow_probability as tfp

    return tfp.distributions
