"""Bad settings are refused at construction, in one line that names the layer, the value and what would work."""

# ruff: noqa: E501

import pytest

from probrt.trainer import layers
from probrt.trainer.variational.posteriors.bounded import GammaPosterior
from probrt.trainer.variational.posteriors.location_scale import LaplacePosterior, NormalPosterior
from probrt.trainer.variational.posteriors.structured import RankOnePosterior
from probrt.trainer.variational.posteriors.vae import VaePosterior
from probrt.trainer.variational.priors.families import (
    GammaPrior,
    LearnedNormalPrior,
    NormalPrior,
    TfpPrior,
    UniformPrior,
)

REFUSED = [
    ({"estimator": "flipout", "kernel_posterior": GammaPosterior()}, "conv: flipout needs a posterior symmetric about its mean, Gamma is not; use estimator 'reparameterization'"),
    ({"estimator": "local_reparameterization", "kernel_posterior": LaplacePosterior()}, "conv: local_reparameterization needs a Normal posterior, got Laplace; use estimator 'flipout'"),
    ({"estimator": "best"}, "conv: estimator 'best' is none of reparameterization, ivon, flipout, local_reparameterization, auto"),
    ({"groups": 3}, "conv: groups 3 does not divide the 4 filters"),
    ({"kernel_posterior": NormalPosterior(-1.0)}, "conv: kernel_posterior: {'name': 'normal', 'initial_scale': -1.0}: Expected `float` > 0.0 - at `$.initial_scale`"),
    ({"kernel_prior": {"name": "normal", "scale": -2.0}}, "conv: kernel_prior: {'name': 'normal', 'scale': -2.0}: Expected `float` > 0.0 - at `$.scale`"),
    ({"kernel_prior": NormalPrior(0.0, 0.0)}, "conv: kernel_prior: {'name': 'normal', 'loc': 0.0, 'scale': 0.0}: Expected `float` > 0.0 - at `$.scale`"),
    ({"kernel_prior": GammaPrior()}, "conv: kernel_prior: Gamma lives on (0, inf), which does not hold Normal's (-inf, inf); use Normal"),
    ({"kernel_prior": UniformPrior(0.0, 1.0), "kernel_posterior": {"name": "beta"}}, "conv: kernel_prior: Uniform lives on (0, 1), which does not hold Beta's (-1, 1); use Uniform(low=-1, high=1) or Normal"),
    ({"kernel_prior": TfpPrior("Exponential", {"rate": 1.0})}, "conv: kernel_prior: Tfp lives on (0, inf), which does not hold Normal's (-inf, inf); use Normal"),
    ({"kernel_prior": LearnedNormalPrior(), "kernel_posterior": RankOnePosterior()}, "conv: kernel_prior: LearnedNormal is over weights, but RankOne's prior is over vectors around 1; use Normal(loc=1.0, scale=0.1)"),
    ({"bias_posterior": VaePosterior()}, "conv: bias_posterior: Vae needs inputs and outputs; use Normal for a bias"),
    ({"strides": 2, "dilation_rate": 2}, "conv: strides (2, 2) and dilation_rate (2, 2) cannot both pass 1"),
    ({"padding": "causal"}, "conv: padding 'causal' is none of 'same', 'valid'"),
    ({"kernel_size": 0}, "conv: kernel_size is 0, must be a positive number or 2 of them"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError) as error:
        layers.Conv2D(**{"filters": 4, "kernel_size": 3, "name": "conv", **settings})
    assert str(error.value) == message


def test_an_unknown_posterior_is_refused_with_the_known_ones():
    with pytest.raises(
        ValueError, match=r"conv: kernel_posterior: {'name': 'cosine'}: Invalid value 'cosine'; "
    ) as error:
        layers.Conv2D(4, 3, name="conv", kernel_posterior={"name": "cosine"})
    assert "choose from normal, laplace, " in str(error.value)
    assert "or install the package that defines it" in str(error.value)


def test_local_reparameterization_on_a_map_is_refused_with_the_reason():
    with pytest.raises(ValueError) as error:
        layers.Conv2D(4, 1, estimator="local_reparameterization", name="conv").build((None, 5, 5, 2))
    assert str(error.value) == (
        "conv: local_reparameterization is exact only for windows of size 1 on maps of size 1, not (1, 1) on (5, 5); "
        "use estimator 'flipout' or 'auto'"
    )


def test_groups_must_divide_the_inputs_channels():
    with pytest.raises(ValueError, match="conv: groups 2 does not divide the input's 3 channels"):
        layers.Conv2D(4, 1, groups=2, name="conv").build((None, 5, 5, 3))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("Gumble", {}, "TFP has no distribution 'Gumble'; use a class name such as 'Gumbel'"),
        ("MultivariateNormalDiag", {}, "TFP's MultivariateNormalDiag refuses {}"),
        ("Normal", {"mean": 1.0}, "TFP's Normal refuses {'mean': 1.0}"),
    ],
)
def test_a_prior_by_name_must_exist_and_be_over_numbers(name, settings, message):
    with pytest.raises(ValueError) as error:
        TfpPrior(name, settings)
    assert str(error.value).startswith(message)
