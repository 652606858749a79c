"""What every probabilistic layer shares: random weights, their ids, and saving."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import msgspec
import tensorflow as tf

from probrt.trainer.estimators import ESTIMATORS
from probrt.trainer.posteriors import Normal, Posterior, posterior
from probrt.trainer.priors import LearnedNormal, Prior, prior
from probrt.trainer.weights import RandomWeight, noise_id

Weight = RandomWeight | keras.Variable
PosteriorLike = Posterior | Mapping[str, Any] | None
PriorLike = Prior | Mapping[str, Any] | None


class ProbabilisticLayer(keras.Layer):
    """A layer with a kernel and a bias, each random or deterministic.

    kernel_posterior, bias_posterior: a family, its record `{"name": …}`, or None for a deterministic weight.
    kernel_prior, bias_prior: likewise; ignored for a deterministic weight.
    estimator: how the kernel is used while training; the bias is always reparameterised.
    noise_ids: ids of the weights' noise, by weight name; made from the layer's name unless given.
    Raises ValueError at construction for settings that cannot work together.
    """

    def __init__(
        self,
        *,
        use_bias: bool = True,
        activation: str | None = None,
        kernel_posterior: PosteriorLike = Normal(),
        kernel_prior: PriorLike = LearnedNormal(),
        bias_posterior: PosteriorLike = None,
        bias_prior: PriorLike = None,
        estimator: str = "flipout",
        noise_ids: Mapping[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.use_bias = use_bias
        self.activation = keras.activations.get(activation)
        self.kernel_posterior = _family(kernel_posterior, posterior, f"{self.name}: kernel_posterior")
        self.kernel_prior = _family(kernel_prior, prior, f"{self.name}: kernel_prior")
        self.bias_posterior = _family(bias_posterior, posterior, f"{self.name}: bias_posterior")
        self.bias_prior = _family(bias_prior, prior, f"{self.name}: bias_prior")
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
        over = over or LearnedNormal()
        weight = RandomWeight(
            id=self.noise_ids.setdefault(name, noise_id(self.name, name)),
            name=f"{self.name}/{name}",
            shape=shape,
            posterior=family,
            prior=over,
            parameters=self._variables(name, family.parameters(shape, fan_in)),
            prior_parameters=self._variables(f"{name}_prior", over.parameters(shape, fan_in)),
        )
        self.random_weights.append(weight)
        return weight

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "use_bias": self.use_bias,
            "activation": keras.activations.serialize(self.activation),
            "kernel_posterior": _record(self.kernel_posterior),
            "kernel_prior": _record(self.kernel_prior),
            "bias_posterior": _record(self.bias_posterior),
            "bias_prior": _record(self.bias_prior),
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
                autocast=False,
            )
            for name, parameter in parameters.items()
        }

    def _check(self) -> None:
        if self.estimator not in ESTIMATORS:
            raise ValueError(f"{self.name}: estimator {self.estimator!r} is none of {', '.join(ESTIMATORS)}")
        if self.estimator == "flipout" and self.kernel_posterior is not None and not self.kernel_posterior.symmetric:
            raise ValueError(
                f"{self.name}: flipout needs a posterior symmetric about its mean, "
                f"{type(self.kernel_posterior).__name__} is not; use estimator 'reparameterization'"
            )


def fan_in(shape: tuple[int, ...]) -> int:
    """Inputs that each output of a kernel [*window, in, out] sums over."""
    return max(1, math.prod(shape[:-1]))


def add_bias(outputs: tf.Tensor, bias: tf.Tensor | None) -> tf.Tensor:
    """Outputs [batch, …, channels] plus a bias [channels], or the outputs where there is none."""
    return outputs if bias is None else outputs + tf.cast(bias, outputs.dtype)


def _family(given: Any, convert: Any, where: str) -> Any:
    if not isinstance(given, Mapping):
        return given
    try:
        return convert(given)
    except msgspec.ValidationError as error:
        raise ValueError(f"{where}: {error}") from None


def _record(family: msgspec.Struct | None) -> dict[str, Any] | None:
    return None if family is None else msgspec.to_builtins(family)
