"""The methods of the quality benchmark: how each is fitted and how its draws are used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from compared.networks import PredictDraws, bayesian, fit_ensemble, fit_mc_dropout
from compared.tfp_flipout import tfp_flipout


@dataclass(frozen=True)
class Method:
    """A way to fit the trunk and to predict with it.

    Attributes:
        fit: fits the networks; takes (train, validation, epochs, fold) and returns their predictions.
        networks_of: the method whose fitted networks this one uses, in place of `fit`.
        temperature: fits a temperature on the validation images.
        first_draw_only: uses the first draw of the networks alone.
        legacy: needs TF_USE_LEGACY_KERAS.
    """

    fit: Callable[..., PredictDraws] | None = None
    networks_of: str = ""
    temperature: bool = False
    first_draw_only: bool = False
    legacy: bool = False


NORMAL = {"kernel_posterior": {"name": "normal", "initial_scale": 0.1}, "kernel_prior": {"name": "normal"}}
LEARNED = {**NORMAL, "kernel_prior": {"name": "learned_normal"}}
RANK_ONE = {
    "kernel_posterior": {"name": "rank_one"},
    "kernel_prior": {"name": "normal", "loc": 1.0, "scale": 0.1},
}
METHODS: dict[str, Method] = {
    "deterministic": Method(networks_of="ensemble of five", first_draw_only=True),
    "deterministic + temperature": Method(networks_of="ensemble of five", first_draw_only=True, temperature=True),
    "ensemble of five": Method(fit_ensemble),
    "ensemble of five + temperature": Method(networks_of="ensemble of five", temperature=True),
    "MC dropout 0.2": Method(fit_mc_dropout),
    "MC dropout 0.2 + temperature": Method(networks_of="MC dropout 0.2", temperature=True),
    "tfp.layers Flipout, KL/N": Method(tfp_flipout(1.0), legacy=True),
    "tfp.layers Flipout, KL/10N": Method(tfp_flipout(0.1), legacy=True),
    "probrt N(0, 1), KL/3N": Method(bayesian(1 / 3, **NORMAL)),
    "probrt N(0, 1), KL/3N + temperature": Method(networks_of="probrt N(0, 1), KL/3N", temperature=True),
    "probrt N(0, 1), KL/10N": Method(bayesian(0.1, **NORMAL)),
    "probrt N(0, 1), KL/10N + temperature": Method(networks_of="probrt N(0, 1), KL/10N", temperature=True),
    "probrt N(0, 1) with dropout 0.2, KL/N": Method(bayesian(1.0, 0.2, **NORMAL)),
}
# Methods of docs/quality.md that run only when the command line names them.
TRIED: dict[str, Method] = {
    "probrt N(0, 1) with dropout 0.1, KL/N": Method(bayesian(1.0, 0.1, **NORMAL)),
    "probrt N(0, 1) with dropout 0.1, KL/2N": Method(bayesian(0.5, 0.1, **NORMAL)),
    "probrt N(0, 1) with dropout 0.1, KL/2N + temperature": Method(
        networks_of="probrt N(0, 1) with dropout 0.1, KL/2N", temperature=True
    ),
    "probrt rank-1, KL/20N + temperature": Method(bayesian(0.05, **RANK_ONE), temperature=True),
    "probrt N(0, 1), KL/N": Method(bayesian(1.0, **NORMAL)),
    "probrt N(0, 1), KL/N + temperature": Method(networks_of="probrt N(0, 1), KL/N", temperature=True),
    "probrt learned prior, KL/N": Method(bayesian(1.0, **LEARNED)),
    "probrt learned prior, KL/20N": Method(bayesian(0.05, **LEARNED)),
    "probrt learned prior, KL/20N + temperature": Method(networks_of="probrt learned prior, KL/20N", temperature=True),
}
