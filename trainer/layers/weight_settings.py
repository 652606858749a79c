"""The settings of a network's weights: `[weights]` of a config."""

from __future__ import annotations

import re
from typing import Any, Literal

import keras
from msgspec import Struct
from msgspec.structs import force_setattr

from probrt.trainer import layers
from probrt.trainer.variational.estimators import explain_refusal
from probrt.trainer.variational.posteriors import AnyPosterior
from probrt.trainer.variational.posteriors.location_scale import NormalPosterior
from probrt.trainer.variational.priors import AnyPrior
from probrt.trainer.variational.resolve import resolve_prior

Activation = Literal["relu", "gelu", "elu", "tanh", "swish"]


# What a config without a posterior begins with. A wider start takes most of a short fit to narrow; from a narrower one
# the draws hardly differ, and nothing is left of the epistemic uncertainty (docs/quality.md).
_NARROW_START = NormalPosterior(initial_scale=0.05)


class WeightSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How the layers of a network get their weights.

    posterior: of kernels; left out, normal, with an initial scale of 0.05, or of 0.1 if an estimator is stated.
    prior: of kernels; left out, the usual one of that posterior. estimator: while fitting.
    bias_posterior, bias_prior: left out, biases are deterministic.
    bayesian: "all" layers, "none", or a regular expression: layers whose name it matches are Bayesian, the
        others deterministic.
    """

    posterior: AnyPosterior = _NARROW_START
    prior: AnyPrior | None = None
    estimator: Literal["auto", "reparameterization", "local_reparameterization", "flipout", "ivon"] = "auto"
    bias_posterior: AnyPosterior | None = None
    bias_prior: AnyPrior | None = None
    bayesian: str = "all"

    def __post_init__(self) -> None:
        try:
            re.compile(self.bayesian)
        except re.error as error:
            raise ValueError(f"bayesian: {self.bayesian!r} is not a regular expression ({error})") from None
        if self.bias_posterior is not None and self.bias_posterior.kernel_only:
            raise ValueError("bias_posterior: this family needs inputs and outputs; use normal for a bias")
        if self.posterior is _NARROW_START and self.estimator != "auto":
            force_setattr(self, "posterior", NormalPosterior())
        # The default is stored, so that --print-config and the model card show it.
        force_setattr(self, "prior", resolve_prior(self.prior, self.posterior, "prior"))
        if reason := explain_refusal(self.estimator, self.posterior, self.prior):
            raise ValueError(f"estimator: {reason}")
        force_setattr(self, "bias_prior", resolve_prior(self.bias_prior, self.bias_posterior, "bias_prior"))

    def conv(
        self, rank: int, filters: int, kernel: int, name: str, activation: str | None = None, strides: int = 1
    ) -> keras.Layer:
        """Returns a same-padded convolution of `rank` dimensions with these weights; for rank 0, a dense layer."""
        families: dict[str, Any] = {"kernel_posterior": None}
        if self._is_random(name):
            families = {
                "kernel_posterior": self.posterior,
                "kernel_prior": self.prior,
                "bias_posterior": self.bias_posterior,
                "bias_prior": self.bias_prior,
                "estimator": self.estimator,
            }
        if rank == 0:
            return layers.Dense(filters, activation=activation, name=name, **families)
        kind = (layers.Conv1D, layers.Conv2D, layers.Conv3D)[rank - 1]
        return kind(filters, kernel, strides=strides, activation=activation, name=name, **families)

    def _is_random(self, name: str) -> bool:
        if self.bayesian in ("all", "none"):
            return self.bayesian == "all"
        return re.search(self.bayesian, name) is not None
