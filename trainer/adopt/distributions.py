"""Converts the posteriors and priors of TFP's layers into ours."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from probrt.runtime.errors import ConfigError, one_line
from probrt.trainer.variational.posteriors.base import Posterior
from probrt.trainer.variational.posteriors.location_scale import LaplacePosterior, LogNormalPosterior, NormalPosterior
from probrt.trainer.variational.priors.base import Prior
from probrt.trainer.variational.priors.families import NormalPrior, TfpPrior

# The families that have one location and one scale per weight, as ours do.
_POSTERIORS = {"Normal": NormalPosterior, "Laplace": LaplacePosterior, "LogNormal": LogNormalPosterior}


def strip_independent(distribution: Any) -> Any:
    """Returns the distribution inside the Independent that tfp.layers makes."""
    # Only there: a LogNormal has a distribution inside too.
    while type(distribution).__name__ == "Independent":
        distribution = distribution.distribution
    return distribution


def convert_posterior(distribution: Any, location: str) -> Posterior | None:
    """Returns the family of a posterior, or None for a deterministic weight; raises ConfigError for other families.

    location: the layer and the weight, for the message.
    """
    family = type(strip_independent(distribution)).__name__
    if distribution is None or "Deterministic" in family:
        return None
    if family not in _POSTERIORS:
        raise ConfigError(
            f"{location}: {family} cannot be adopted; use one of {', '.join(_POSTERIORS)} or Deterministic"
        )
    return _POSTERIORS[family]()


def convert_prior(distribution: Any, location: str) -> Prior | None:
    """Returns a layer's prior; it matters only to later training.

    Raises ConfigError if its parameters differ between weights, or if our priors do not include it. location: the
    layer and the weight, for the message.
    """
    if distribution is None:
        return None
    single = strip_independent(distribution)
    family = type(single).__name__
    settings = {}
    for name in type(single).parameter_properties():
        parameter = single.parameters.get(name)
        if parameter is not None:
            values = np.asarray(parameter, np.float32)
            if np.ptp(values) > 0:
                raise ConfigError(f"{location} prior: its {name} differs between weights; use one for all")
            settings[name] = float(values.flat[0])
    try:
        return TfpPrior(family, settings) if family != "Normal" else NormalPrior(**settings)
    except (ValueError, TypeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{location} prior: {family} cannot be adopted ({one_line(error)[:200]})") from None
