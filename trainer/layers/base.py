"""The base class of probabilistic layers: random weights, their ids, and saving."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from probrt.trainer.variational.estimators import explain_refusal, resolve_estimator
from probrt.trainer.variational.posteriors.base import Posterior
from probrt.trainer.variational.posteriors.location_scale import NormalPosterior
from probrt.trainer.variational.priors.base import Prior
from probrt.trainer.variational.random_weight import RandomWeight, make_noise_id
from probrt.trainer.variational.resolve import PosteriorLike, PriorLike, resolve_posterior, resolve_prior, to_record

Weight: TypeAlias = RandomWeight | keras.Variable


class ProbabilisticLayer(keras.Layer):
    """A layer with a kernel and a bias, each random or deterministic.

    kernel_posterior, bias_posterior: a family, its name, its record `{"name": …}`, or None for a deterministic
        weight.
    kernel_prior, bias_prior: likewise; None is Normal(0, 1) (for RankOne, Normal(1, 0.1)).
        Ignored for a deterministic weight.
    estimator: how the kernel is used while training; `auto` takes local_reparameterization where it is
        exact, else reparameterization. The bias is always
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
        kernel_posterior: PosteriorLike = NormalPosterior(),
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
        self.kernel_posterior = resolve_posterior(kernel_posterior, f"{self.name}: kernel_posterior")
        self.kernel_prior = resolve_prior(kernel_prior, self.kernel_posterior, f"{self.name}: kernel_prior")
        self.bias_posterior = resolve_posterior(bias_posterior, f"{self.name}: bias_posterior")
        self.bias_prior = resolve_prior(bias_prior, self.bias_posterior, f"{self.name}: bias_prior")
        self.estimator = estimator
        self.noise_ids = dict(noise_ids or {})
        self.random_weights: list[RandomWeight] = []
        self._check_settings()

    def add_posterior_weight(
        self, name: str, shape: tuple[int, ...], *, fan_in: int, posterior: Posterior | None, prior: Prior | None
    ) -> Weight:
        """Adds a weight: random with that posterior and prior, or deterministic where `posterior` is None."""
        if posterior is None:
            initializer = "zeros" if name == "bias" else keras.initializers.HeNormal()
            return self.add_weight(name=name, shape=shape, initializer=initializer)
        prior = prior or posterior.usual_prior()
        weight = RandomWeight(
            id=self.noise_ids.setdefault(name, make_noise_id(self.name, name)),
            name=f"{self.name}/{name}",
            shape=shape,
            posterior=posterior,
            prior=prior,
            parameters=self._add_variables(name, posterior.parameters(shape, fan_in)),
            prior_parameters=self._add_variables(f"{name}_prior", prior.parameters(shape, fan_in)),
        )
        with tf.init_scope():
            weight.anchor_prior(weight.mean())
        self.random_weights.append(weight)
        return weight

    def add_bias(self, channels: int, fan_in: int) -> Weight | None:
        """Adds the bias [channels]; returns None without `use_bias`."""
        if not self.use_bias:
            return None
        return self.add_posterior_weight(
            "bias", (channels,), fan_in=fan_in, posterior=self.bias_posterior, prior=self.bias_prior
        )

    def choose_estimator(self, once: bool, condition: str) -> None:
        """Chooses the estimator in use, now that the input's shape is known.

        once: whether each kernel weight meets an example once. condition: the inputs for which it does, for the
        error.
        """
        if self.estimator == "local_reparameterization" and self.kernel_posterior is not None and not once:
            raise ValueError(
                f"{self.name}: local_reparameterization is exact only for {condition}; "
                "use estimator 'flipout' or 'auto'"
            )
        self.estimator_in_use = resolve_estimator(self.estimator, self.kernel_posterior, once)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "use_bias": self.use_bias,
            "activation": keras.activations.serialize(self.activation),
            "kernel_posterior": to_record(self.kernel_posterior),
            "kernel_prior": to_record(self.kernel_prior),
            "bias_posterior": to_record(self.bias_posterior),
            "bias_prior": to_record(self.bias_prior),
            "estimator": self.estimator,
            "noise_ids": self.noise_ids,
        }

    def _add_variables(self, prefix: str, parameters: Mapping[str, Any]) -> dict[str, keras.Variable]:
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

    def _check_settings(self) -> None:
        if reason := explain_refusal(self.estimator, self.kernel_posterior, self.kernel_prior):
            raise ValueError(f"{self.name}: {reason}")
        if self.bias_posterior is not None and self.bias_posterior.kernel_only:
            family = self.bias_posterior.title
            raise ValueError(f"{self.name}: bias_posterior: {family} needs inputs and outputs; use Normal for a bias")


def compute_fan_in(shape: tuple[int, ...]) -> int:
    """Returns the number of inputs that each output of a kernel [*window, in, out] sums over."""
    return max(1, math.prod(shape[:-1]))
