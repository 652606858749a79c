"""What every probabilistic layer shares: random weights, their ids, and saving."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import msgspec
import tensorflow as tf

from probrt.trainer.variational.estimators import refusal, resolved
from probrt.trainer.variational.posteriors import Normal, Posterior, RankOne, posterior
from probrt.trainer.variational.priors import LearnedNormal, Moped, Prior, prior
from probrt.trainer.variational.priors import Normal as NormalPrior
from probrt.trainer.variational.weights import RandomWeight, noise_id

Weight = RandomWeight | keras.Variable
PosteriorLike = Posterior | Mapping[str, Any] | None
PriorLike = Prior | Mapping[str, Any] | None


class ProbabilisticLayer(keras.Layer):
    """A layer with a kernel and a bias, each random or deterministic.

    kernel_posterior, bias_posterior: a family, its record `{"name": …}`, or None for a deterministic weight.
    kernel_prior, bias_prior: likewise; None is Normal(0, 1) (for RankOne, Normal(1, 0.1)).
        Ignored for a deterministic weight.
    estimator: how the kernel is used while training; `auto` takes local_reparameterization where it is
        exact, else flipout where the posterior is symmetric, else reparameterization. The bias is always
        reparameterised.
    noise_ids: ids of the weights' noise, by weight name; made from the layer's name unless given.
    Raises ValueError at construction for settings that cannot work together, and when built for an
        estimator that the input's shape rules out.
    """

    def __init__(
        self,
        *,
        use_bias: bool = True,
        activation: Any = None,
        kernel_posterior: PosteriorLike = Normal(),
        kernel_prior: PriorLike = None,
        bias_posterior: PosteriorLike = None,
        bias_prior: PriorLike = None,
        estimator: str = "auto",
        noise_ids: Mapping[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.use_bias = use_bias
        self.activation = keras.activations.get(activation)
        self.kernel_posterior = chosen_posterior(kernel_posterior, f"{self.name}: kernel_posterior")
        self.kernel_prior = chosen_prior(kernel_prior, self.kernel_posterior, f"{self.name}: kernel_prior")
        self.bias_posterior = chosen_posterior(bias_posterior, f"{self.name}: bias_posterior")
        self.bias_prior = chosen_prior(bias_prior, self.bias_posterior, f"{self.name}: bias_prior")
        self.estimator = estimator
        self.noise_ids = dict(noise_ids or {})
        self.random_weights: list[RandomWeight] = []
        self._check()

    def add_posterior_weight(
        self, name: str, shape: tuple[int, ...], fan_in: int, family: Posterior | None, over: Prior | None
    ) -> Weight:
        """A new weight: random with that posterior and prior, or deterministic where `family` is None."""
        if family is None:
            start = "zeros" if name == "bias" else keras.initializers.HeNormal()
            return self.add_weight(name=name, shape=shape, initializer=start)
        over = over or usual_prior(family)
        weight = RandomWeight(
            id=self.noise_ids.setdefault(name, noise_id(self.name, name)),
            name=f"{self.name}/{name}",
            shape=shape,
            posterior=family,
            prior=over,
            parameters=self._variables(name, family.parameters(shape, fan_in)),
            prior_parameters=self._variables(f"{name}_prior", over.parameters(shape, fan_in)),
        )
        if isinstance(over, Moped):
            with tf.init_scope():
                weight.prior_parameters["anchor"].assign(weight.mean())
        self.random_weights.append(weight)
        return weight

    def add_bias(self, channels: int, fan_in: int) -> Weight | None:
        """The bias [channels], or None without `use_bias`."""
        if not self.use_bias:
            return None
        return self.add_posterior_weight("bias", (channels,), fan_in, self.bias_posterior, self.bias_prior)

    def settle_estimator(self, once: bool, why: str) -> None:
        """Fixes the estimator in use, now that the input's shape is known.

        once: whether each kernel weight meets an example once; why: what it would take, for the refusal.
        """
        if self.estimator == "local_reparameterization" and self.kernel_posterior is not None and not once:
            raise ValueError(
                f"{self.name}: local_reparameterization is exact only for {why}; use estimator 'flipout' or 'auto'"
            )
        self.estimator_in_use = resolved(self.estimator, self.kernel_posterior, once)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "use_bias": self.use_bias,
            "activation": keras.activations.serialize(self.activation),
            "kernel_posterior": record(self.kernel_posterior),
            "kernel_prior": record(self.kernel_prior),
            "bias_posterior": record(self.bias_posterior),
            "bias_prior": record(self.bias_prior),
            "estimator": self.estimator,
            "noise_ids": self.noise_ids,
        }

    def _variables(self, prefix: str, parameters: Mapping[str, Any]) -> dict[str, keras.Variable]:
        return {
            name: self.add_weight(
                name=f"{prefix}_{name}",
                shape=parameter.shape,
                dtype="float32",
                initializer=lambda shape, dtype=None, start=parameter.start: start(shape),
                trainable=parameter.trainable,
                autocast=False,
            )
            for name, parameter in parameters.items()
        }

    def _check(self) -> None:
        if reason := refusal(self.estimator, self.kernel_posterior):
            raise ValueError(f"{self.name}: {reason}")
        if self.bias_posterior is not None and self.bias_posterior.kernel_only:
            family = type(self.bias_posterior).__name__
            raise ValueError(f"{self.name}: bias_posterior: {family} needs inputs and outputs; use Normal for a bias")


def fan_in(shape: tuple[int, ...]) -> int:
    """Inputs that each output of a kernel [*window, in, out] sums over."""
    return max(1, math.prod(shape[:-1]))


def chosen_posterior(given: PosteriorLike, where: str) -> Posterior | None:
    """A posterior out of itself or its record; ValueError says what is wrong with it."""
    return _family(given, posterior, where)


def _family(given: Any, convert: Any, where: str) -> Any:
    """A family out of itself or its record; both are checked, for msgspec checks only what it converts."""
    if given is None:
        return None
    settings = dict(given) if isinstance(given, Mapping) else record(given)
    try:
        return convert(settings)
    except msgspec.ValidationError as error:
        raise ValueError(f"{where}: {settings}: {error}") from None


def chosen_prior(given: PriorLike, family: Posterior | None, where: str) -> Prior | None:
    """The prior of a random weight, its own default if none is given; ValueError if the two do not fit."""
    if family is None:
        return None
    if given is None:
        return usual_prior(family)
    over = _family(given, prior, where)
    if isinstance(family, RankOne) and isinstance(over, LearnedNormal | Moped):
        raise ValueError(
            f"{where}: {type(over).__name__} is over weights, but RankOne's prior is over vectors around 1; "
            "use Normal(loc=1.0, scale=0.1)"
        )
    low, high = family.support
    if over.support[0] > low or over.support[1] < high:
        raise ValueError(
            f"{where}: {type(over).__name__} lives on {_interval(over.support)}, which does not hold "
            f"{type(family).__name__}'s {_interval((low, high))}; use {_fitting(low, high)}"
        )
    return over


def usual_prior(family: Posterior) -> Prior:
    """Where none is named: the standard normal, or around 1 for factors.

    A trained scale narrows with the posterior: fitted with all of the KL, such a network learns next to nothing
    (docs/quality.md).
    """
    return NormalPrior(1.0, 0.1) if isinstance(family, RankOne) else NormalPrior()


def _interval(ends: tuple[float, float]) -> str:
    return f"({ends[0]:g}, {ends[1]:g})"


def _fitting(low: float, high: float) -> str:
    if math.isinf(low) or math.isinf(high):
        return "Normal" if math.isinf(low) else "Normal, or Gamma with a posterior on positive numbers"
    return f"Uniform(low={low:g}, high={high:g}) or Normal"


def record(family: msgspec.Struct | None) -> dict[str, Any] | None:
    """What a layer's config holds of a family."""
    return None if family is None else msgspec.to_builtins(family)
