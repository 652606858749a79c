"""Posteriors and priors given by name: records become families, and pairs that do not fit are refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from probrt.trainer.variational.posteriors import Posterior, posterior
from probrt.trainer.variational.priors import Prior, prior

PosteriorLike = Posterior | Mapping[str, Any] | None
PriorLike = Prior | Mapping[str, Any] | None


def resolve_posterior(given: PosteriorLike, where: str) -> Posterior | None:
    """Returns the posterior that a family or its record stands for; ValueError, headed by `where`, if it is invalid."""
    return None if given is None else _convert(given, posterior, where)


def resolve_prior(given: PriorLike, family: Posterior | None, where: str) -> Prior | None:
    """Returns the prior of a weight with that posterior, its usual one if none is given; None without a posterior.

    Raises ValueError, headed by `where`, if the record is invalid or the two do not fit.
    """
    if family is None:
        return None
    if given is None:
        return family.usual_prior()
    resolved = _convert(given, prior, where)
    if misfit := family.explain_misfit(resolved):
        raise ValueError(f"{where}: {misfit}")
    return resolved


def to_record(family: msgspec.Struct | None) -> dict[str, Any] | None:
    """Returns what a layer's config stores of a family."""
    return None if family is None else msgspec.to_builtins(family)


def _convert(given: msgspec.Struct | Mapping[str, Any], convert: Callable[[Mapping[str, Any]], Any], where: str) -> Any:
    # Instances are converted too: msgspec checks only what it converts.
    settings = dict(given) if isinstance(given, Mapping) else msgspec.to_builtins(given)
    try:
        return convert(settings)
    except msgspec.ValidationError as error:
        raise ValueError(f"{where}: {settings}: {error}") from None
