"""Posteriors and priors given by name: records become families, and pairs that do not fit are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from probrt.trainer.extensions import ExtensionPoint, UnknownTagError
from probrt.trainer.variational.posteriors import POSTERIORS, Posterior
from probrt.trainer.variational.priors import PRIORS, Prior

PosteriorLike = Posterior | Mapping[str, Any] | str | None
PriorLike = Prior | Mapping[str, Any] | str | None


def resolve_posterior(given: PosteriorLike, where: str) -> Posterior | None:
    """Returns the posterior that a family or its record stands for; ValueError, headed by `where`, if it is invalid."""
    if given is None:
        return None
    posterior: Posterior = _convert(given, POSTERIORS, where)
    return posterior


def resolve_prior(given: PriorLike, family: Posterior | None, where: str) -> Prior | None:
    """Returns the prior of a weight with that posterior, its usual one if none is given; None without a posterior.

    Raises ValueError, headed by `where`, if the record is invalid or the two do not fit.
    """
    if family is None:
        return None
    if given is None:
        return family.usual_prior()
    resolved: Prior = _convert(given, PRIORS, where)
    if misfit := family.explain_misfit(resolved):
        raise ValueError(f"{where}: {misfit}")
    return resolved


def to_record(family: msgspec.Struct | None) -> dict[str, Any] | None:
    """Returns the record of a family that a layer's config stores."""
    if family is None:
        return None
    record: dict[str, Any] = msgspec.to_builtins(family)
    return record


def _convert(given: msgspec.Struct | Mapping[str, Any] | str, point: ExtensionPoint, where: str) -> Any:
    given = {"name": given} if isinstance(given, str) else given
    if not isinstance(given, Mapping) and (fault := point.explain_fault(type(given))):
        raise ValueError(f"{where}: {fault}")
    # Instances are converted too: msgspec checks only what it converts.
    record = dict(given) if isinstance(given, Mapping) else msgspec.to_builtins(given)
    try:
        return point.convert(record)
    except (msgspec.ValidationError, UnknownTagError) as error:
        raise ValueError(f"{where}: {record}: {error}") from error
