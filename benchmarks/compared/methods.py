"""What is compared: how each method is fitted, and what is made of its draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from compared.networks import Answer, bayesian, ensemble, mc_dropout
from compared.tfp_flipout import tfp_flipout


@dataclass(frozen=True)
class Method:
    """fit: (train, validation, epochs, fold) to the answers. temperature: whether one is fitted.

    of: the method whose networks it uses. one: whether it is the first of their draws alone.
    legacy: whether it needs TF_USE_LEGACY_KERAS.
    """

    fit: Callable[..., Answer] | None = None
    of: str = ""
    temperature: bool = False
    one: bool = False
    legacy: bool = False


NORMAL = {"kernel_posterior": {"name": "normal", "initial_scale": 0.1}, "kernel_prior": {"name": "normal"}}
LEARNED = {**NORMAL, "kernel_prior": {"name": "learned_normal"}}
RANK_ONE = {
    "kernel_posterior": {"name": "rank_one"},
    "kernel_prior": {"name": "normal", "loc": 1.0, "scale": 0.1},
}
METHODS: dict[str, Method] = {
    "deterministic": Method(of="ensemble of five", one=True),
    "deterministic + temperature": Method(of="ensemble of five", one=True, temperature=True),
    "ensemble of five": Method(ensemble),
    "ensemble of five + temperature": Method(of="ensemble of five", temperature=True),
    "MC dropout 0.2": Method(mc_dropout),
    "MC dropout 0.2 + temperature": Method(of="MC dropout 0.2", temperature=True),
    "tfp.layers Flipout, KL/N": Method(tfp_flipout(1.0), legacy=True),
    "tfp.layers Flipout, KL/10N": Method(tfp_flipout(0.1), legacy=True),
    "probrt N(0, 1), KL/3N": Method(bayesian(1 / 3, **NORMAL)),
    "probrt N(0, 1), KL/3N + temperature": Method(of="probrt N(0, 1), KL/3N", temperature=True),
    "probrt N(0, 1), KL/10N": Method(bayesian(0.1, **NORMAL)),
    "probrt N(0, 1), KL/10N + temperature": Method(of="probrt N(0, 1), KL/10N", temperature=True),
    "probrt N(0, 1) with dropout 0.2, KL/N": Method(bayesian(1.0, 0.2, **NORMAL)),
}
# Tried besides (docs/quality.md); named on the command line they run, but not by default.
TRIED: dict[str, Method] = {
    "probrt N(0, 1) with dropout 0.1, KL/N": Method(bayesian(1.0, 0.1, **NORMAL)),
    "probrt N(0, 1) with dropout 0.1, KL/2N": Method(bayesian(0.5, 0.1, **NORMAL)),
    "probrt N(0, 1) with dropout 0.1, KL/2N + temperature": Method(
        of="probrt N(0, 1) with dropout 0.1, KL/2N", temperature=True
    ),
    "probrt rank-1, KL/20N + temperature": Method(bayesian(0.05, **RANK_ONE), temperature=True),
    "probrt N(0, 1), KL/N": Method(bayesian(1.0, **NORMAL)),
    "probrt N(0, 1), KL/N + temperature": Method(of="probrt N(0, 1), KL/N", temperature=True),
    "probrt learned prior, KL/N": Method(bayesian(1.0, **LEARNED)),
    "probrt learned prior, KL/20N": Method(bayesian(0.05, **LEARNED)),
    "probrt learned prior, KL/20N + temperature": Method(of="probrt learned prior, KL/20N", temperature=True),
}
