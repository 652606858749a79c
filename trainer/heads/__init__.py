"""Heads: named output tasks, each with a likelihood."""

from __future__ import annotations

from probrt.trainer.heads.base import Head, Moments, Own
from probrt.trainer.heads.bernoulli import Bernoulli, BernoulliMixture
from probrt.trainer.heads.categorical import Categorical, Ordinal
from probrt.trainer.heads.counts import NegativeBinomial, Poisson
from probrt.trainer.heads.mixture import NormalMixture
from probrt.trainer.heads.multivariate import MultivariateNormal
from probrt.trainer.heads.proportions import Beta
from probrt.trainer.heads.real import Box, Laplace, LogNormal, Normal, StudentT

AnyHead = (
    Categorical
    | Ordinal
    | Bernoulli
    | BernoulliMixture
    | Normal
    | Laplace
    | StudentT
    | LogNormal
    | MultivariateNormal
    | NormalMixture
    | Poisson
    | NegativeBinomial
    | Beta
    | Box
)

__all__ = [
    "AnyHead",
    "Bernoulli",
    "BernoulliMixture",
    "Beta",
    "Box",
    "Categorical",
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
    "StudentT",
]
