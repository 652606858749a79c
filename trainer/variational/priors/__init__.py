"""Priors over weights, given by name and parameters; densities are TFP's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probrt.trainer.extensions import ExtensionPoint
from probrt.trainer.variational.priors.base import Prior
from probrt.trainer.variational.priors.families import CauchyPrior as Cauchy
from probrt.trainer.variational.priors.families import GammaPrior as Gamma
from probrt.trainer.variational.priors.families import HorseshoePrior as Horseshoe
from probrt.trainer.variational.priors.families import LaplacePrior as Laplace
from probrt.trainer.variational.priors.families import LearnedNormalPrior as LearnedNormal
from probrt.trainer.variational.priors.families import LogNormalPrior as LogNormal
from probrt.trainer.variational.priors.families import MopedPrior as Moped
from probrt.trainer.variational.priors.families import NormalPrior as Normal
from probrt.trainer.variational.priors.families import ScaleMixturePrior as ScaleMixture
from probrt.trainer.variational.priors.families import StudentTPrior as StudentT
from probrt.trainer.variational.priors.families import TfpPrior as Named
from probrt.trainer.variational.priors.families import UniformPrior as Uniform

__all__ = [
    "PRIORS",
    "AnyPrior",
    "Cauchy",
    "Gamma",
    "Horseshoe",
    "Laplace",
    "LearnedNormal",
    "LogNormal",
    "Moped",
    "Named",
    "Normal",
    "Prior",
    "ScaleMixture",
    "StudentT",
    "Uniform",
]

PRIORS = ExtensionPoint(
    "prior",
    Prior,
    (
        Normal,
        LearnedNormal,
        Moped,
        Laplace,
        ScaleMixture,
        StudentT,
        Cauchy,
        Horseshoe,
        Gamma,
        LogNormal,
        Uniform,
        Named,
    ),
)
if TYPE_CHECKING:
    AnyPrior = Prior
else:
    AnyPrior = PRIORS.field_type
