"""Posterior families: the variational distributions that a weight can have.

A family is a frozen record of its settings, so that it is given by name and parameters in a config
and comes back after saving; its trained parameters are Keras variables, handed to its methods by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from probrt.trainer.extensions import ExtensionPoint
from probrt.trainer.variational.parameters import Parameter, Parameters, softplus_inverse
from probrt.trainer.variational.posteriors.base import Posterior
from probrt.trainer.variational.posteriors.bounded import BetaPosterior as Beta
from probrt.trainer.variational.posteriors.bounded import GammaPosterior as Gamma
from probrt.trainer.variational.posteriors.full import FullNormalPosterior as FullNormal
from probrt.trainer.variational.posteriors.full import KroneckerNormalPosterior as KroneckerNormal
from probrt.trainer.variational.posteriors.location_scale import LaplacePosterior as Laplace
from probrt.trainer.variational.posteriors.location_scale import LogNormalPosterior as LogNormal
from probrt.trainer.variational.posteriors.location_scale import NormalPosterior as Normal
from probrt.trainer.variational.posteriors.mixture import NormalMixturePosterior as NormalMixture
from probrt.trainer.variational.posteriors.structured import LowRankNormalPosterior as LowRankNormal
from probrt.trainer.variational.posteriors.structured import RankOnePosterior as RankOne
from probrt.trainer.variational.posteriors.vae import VaePosterior as Vae

__all__ = [
    "POSTERIORS",
    "AnyPosterior",
    "Beta",
    "FullNormal",
    "Gamma",
    "KroneckerNormal",
    "Laplace",
    "LogNormal",
    "LowRankNormal",
    "Normal",
    "NormalMixture",
    "Parameter",
    "Parameters",
    "Posterior",
    "RankOne",
    "Vae",
    "softplus_inverse",
]

POSTERIORS = ExtensionPoint(
    "posterior",
    Posterior,
    (
        Normal,
        Laplace,
        LogNormal,
        NormalMixture,
        Beta,
        Gamma,
        LowRankNormal,
        FullNormal,
        KroneckerNormal,
        RankOne,
        Vae,
    ),
)
if TYPE_CHECKING:
    AnyPosterior = Posterior
else:
    AnyPosterior = POSTERIORS.field_type
