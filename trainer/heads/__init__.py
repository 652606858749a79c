"""Heads: named outputs, each with a likelihood."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probrt.trainer.extensions import ExtensionPoint
from probrt.trainer.heads.base import Head, Moments
from probrt.trainer.heads.base import OwnLayers as Own
from probrt.trainer.heads.bernoulli import BernoulliHead as Bernoulli
from probrt.trainer.heads.bernoulli import BernoulliMixtureHead as BernoulliMixture
from probrt.trainer.heads.binary import BinaryHead
from probrt.trainer.heads.box import BoxHead as Box
from probrt.trainer.heads.categorical import CategoricalHead as Categorical
from probrt.trainer.heads.categorical import OrdinalHead as Ordinal
from probrt.trainer.heads.classes import ClassHead
from probrt.trainer.heads.counts import NegativeBinomialHead as NegativeBinomial
from probrt.trainer.heads.counts import PoissonHead as Poisson
from probrt.trainer.heads.location_scale import LaplaceHead as Laplace
from probrt.trainer.heads.location_scale import LogNormalHead as LogNormal
from probrt.trainer.heads.location_scale import NormalHead as Normal
from probrt.trainer.heads.location_scale import StudentTHead as StudentT
from probrt.trainer.heads.mixture import NormalMixtureHead as NormalMixture
from probrt.trainer.heads.multivariate import MultivariateNormalHead as MultivariateNormal
from probrt.trainer.heads.proportions import BetaHead as Beta
from probrt.trainer.heads.real import RealHead

__all__ = [
    "HEADS",
    "AnyHead",
    "Bernoulli",
    "BernoulliMixture",
    "Beta",
    "BinaryHead",
    "Box",
    "Categorical",
    "ClassHead",
    "Head",
    "Laplace",
    "LogNormal",
    "Moments",
    "MultivariateNormal",
    "NegativeBinomial",
    "Normal",
    "NormalMixture",
    "Ordinal",
    "Own",
    "Poisson",
    "RealHead",
    "StudentT",
]

HEADS = ExtensionPoint(
    "head",
    Head,
    (
        Categorical,
        Ordinal,
        Bernoulli,
        BernoulliMixture,
        Normal,
        Laplace,
        StudentT,
        LogNormal,
        MultivariateNormal,
        NormalMixture,
        Poisson,
        NegativeBinomial,
        Beta,
        Box,
    ),
)
if TYPE_CHECKING:
    AnyHead = Head
else:
    AnyHead = HEADS.field_type
