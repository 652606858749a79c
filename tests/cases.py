"""The registry of small cases: one model per layer, posterior, prior, head and backbone.

A new public thing needs one case here; test_completeness.py names what has none, and
test_conformance.py runs every case through every variant and engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from probrt.runtime.bundle.manifest import Input
from probrt.trainer import backbones, heads, layers
from probrt.trainer.build import build_model
from probrt.trainer.keras_internals import flatten_layers
from probrt.trainer.layers.append_one import AppendOne
from probrt.trainer.layers.base import ProbabilisticLayer
from probrt.trainer.layers.split import HeadSplit
from probrt.trainer.layers.weight_settings import WeightSettings
from probrt.trainer.model import Model
from probrt.trainer.variational import posteriors, priors
from probrt.trainer.variational.estimators import TrainingHandler
from probrt.trainer.variational.handlers import use_handler

DRAWS = 8
# The cases that are exported in every precision, the others in float32.
REPRESENTATIVE = ("digits", "layers1d", "layers2d_dynamic", "layers3d", "dense", "unet2d_dynamic")
# The cases that are exported with the novelty of each position.
MAPPED = ("unet2d_dynamic",)
SLANT = heads.Normal(name="slant", centre=[3.0], spread=[0.5])
DIGIT = heads.Categorical(name="digit", labels=["a", "b", "c"])
INK = heads.Bernoulli(name="ink", per_position=True)
TISSUE = heads.Categorical(name="tissue", labels=["a", "b", "c"], per_position=True)

# Heads on feature vectors, in one case; test_heads.py takes from here each head that head_examples.py does not list.
FEATURE_HEADS: tuple[heads.Head, ...] = (
    heads.Ordinal(name="grade", labels=["low", "middle", "high", "top"]),
    heads.Laplace(name="tilt", scale="learned"),
    heads.StudentT(name="shift", scale=0.3),
    heads.LogNormal(name="size"),
    heads.MultivariateNormal(name="place", labels=["x", "y", "z"]),
    heads.MultivariateNormal(name="corner", labels=["x", "y", "z"], covariance="low_rank"),
    heads.NormalMixture(name="angle", labels=["a", "b"], bins=8, centre=[0.0, 1.0], spread=[1.0, 2.0]),
    heads.Poisson(name="count", centre=[3.0], spread=[2.0]),
    heads.NegativeBinomial(name="spots"),
    heads.Beta(name="share"),
)


@dataclass(frozen=True)
class Case:
    """A small model by name; `make` builds it anew, with the same variables each time.

    heavy: too slow for every run; `make stress` has it.
    rounding: how far apart two float32 computations of it may lie, as a part of the largest output or of 1.
    """

    name: str
    make: Callable[[], Model]
    covers: frozenset[type] = field(default_factory=frozenset)
    heavy: bool = False
    rounding: float = 1e-5

    def model(self) -> Model:
        """The model, its random state fixed by the case's name."""
        # Layers without a name are numbered through the process, and a weight's noise is keyed by its layer's name.
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(sum(self.name.encode()))
        return self.make()


def layered(
    name: str, shape: Sequence[int | None], chosen: Sequence[heads.AnyHead], body: Callable[[Any], Any], final: Any
) -> Model:
    """A model of raw values in [-1, 1]: `body` makes features, `final` (a layer by its filters) the channels."""
    split = HeadSplit([(head.name, head.channels, 1 if head.per_position else 0) for head in chosen], name="heads")
    images = keras.Input(shape, name="images")
    network = keras.Model(images, split(final(split.channels)(body(images))), name="network")
    input = Input(shape=list(shape), colour="none", resize="none", range=(-1.0, 1.0))
    return Model(name, input, tuple(chosen), network)


def conv2d(name: str, **settings: Any) -> Case:
    """A convolution of these settings and a deterministic final one, on 8 by 8 images, with two heads."""

    def make() -> Model:
        layer = layers.Conv2D(4, 3, activation="relu", name="conv", **settings)
        return layered(name, [8, 8, 2], [DIGIT, SLANT], layer, _final2d)

    return Case(name, make)


def named(name: str, kind: type[ProbabilisticLayer], **settings: Any) -> Case:
    """A system that a config and Python both name: a layer of these settings and a deterministic final one."""

    def make() -> Model:
        layer = kind(3, 3, activation="relu", name="conv", **settings)
        shape = [*(6, 5, 4)[: layer.rank], 2]
        return layered(name, shape, [DIGIT, SLANT], layer, lambda filters: kind(filters, 1, kernel_posterior=None))

    return Case(name, make)


def stack(name: str, shape: Sequence[int | None], *body: Callable[[], Any]) -> Case:
    """Layers one after the other, made anew each time, and a dense final one."""

    def make() -> Model:
        return layered(
            name,
            shape,
            [DIGIT, SLANT],
            lambda images: keras.Sequential([make_layer() for make_layer in body], name="body")(images),
            lambda filters: layers.Dense(filters, name="final"),
        )

    return Case(name, make)


def of(kind: type, *args: Any, **settings: Any) -> Callable[[], Any]:
    """A layer to be made later."""
    return lambda: kind(*args, **settings)


def _final2d(filters: int) -> ProbabilisticLayer:
    return layers.Conv2D(filters, 1, kernel_posterior=None, name="final")


def _digits() -> Model:
    input = Input(shape=[16, 16, 1], colour="grey", resize="bilinear", range=(0, 255))
    backbone = backbones.ConvStack(widths=(4, 6))
    weights = WeightSettings()
    return settled(
        build_model("digits", input, [DIGIT, SLANT, INK], backbone=backbone, weights=weights, final_kernel=3)
    )


def built(
    name: str,
    shape: Sequence[int | None],
    chosen: Sequence[heads.AnyHead],
    backbone: backbones.AnyBackbone,
    **more: Any,
) -> Case:
    """A model of a backbone and these heads; raw values in [-1, 1] unless `more` says other things of the input."""

    def make() -> Model:
        settings = {"colour": "none", "resize": "none", "range": (-1.0, 1.0), **more}
        input = Input(shape=list(shape), **settings)
        return settled(build_model(name, input, chosen, backbone=backbone, weights=WeightSettings()))

    deep = isinstance(backbone, backbones.Pretrained)
    # Through MobileNetV2's 53 untrained layers, a change of the images' last bit moves a probability by 1.7e-5.
    return Case(name, make, frozenset({type(backbone)}), heavy=deep, rounding=1e-4 if deep else 1e-5)


def settled(model: Model) -> Model:
    """The model with batch normalisations that know one batch: in a deep new network all signal would vanish."""
    low, high = model.input.range or (-1.0, 1.0)
    images = np.random.default_rng(1).uniform(low, high, (8, *sides_of(model.input))).astype(np.float32)
    norms = [layer for layer in flatten_layers(model.network) if isinstance(layer, keras.layers.BatchNormalization)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    with use_handler(TrainingHandler(0, 0)):
        model.channels(images, training=True)
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    return model


def small_features(images: Any, making: WeightSettings, width: int) -> Any:
    """A backbone of the user's own."""
    return keras.layers.ReLU(name="own_relu")(making.conv(2, width, 3, "own")(images))


def sides_of(input: Input) -> list[int]:
    return [side or 8 for side in input.shape]


CASES: tuple[Case, ...] = (
    Case("digits", _digits, frozenset({backbones.ConvStack})),
    conv2d(
        "conv2d_random_bias",
        estimator="reparameterization",
        kernel_prior={"name": "normal"},
        bias_posterior={"name": "normal"},
        bias_prior={"name": "normal"},
    ),
    named(
        "conv2d_laplace",
        layers.Conv2D,
        kernel_posterior={"name": "laplace"},
        kernel_prior={"name": "laplace"},
        estimator="reparameterization",
    ),
    stack(
        "append_one", [6], of(AppendOne), of(layers.Dense, 4, kernel_posterior={"name": "full_normal"}, name="dense")
    ),
    conv2d("conv2d_kronecker", kernel_posterior={"name": "kronecker_normal"}),
    named("conv3d_laplace_prior", layers.Conv3D, kernel_prior={"name": "laplace"}, estimator="flipout"),
    named("conv3d_mixture", layers.Conv3D, kernel_posterior={"name": "normal_mixture"}, estimator="flipout"),
    named(
        "conv3d_beta_gamma",
        layers.Conv3D,
        kernel_posterior={"name": "beta", "low": 0.0, "high": 1.0},
        kernel_prior={"name": "gamma"},
        bias_posterior={"name": "beta"},
        bias_prior={"name": "uniform"},
    ),
    named("conv2d_vae", layers.Conv2D, kernel_posterior={"name": "vae"}),
    stack(
        "layers1d",
        [12, 2],
        of(layers.Conv1D, 4, 3, padding="causal", dilation_rate=2, kernel_prior=priors.StudentT()),
        of(layers.Conv1DTranspose, 3, 3, strides=2, activation="tanh", kernel_prior=priors.Cauchy()),
    ),
    stack(
        "layers2d_dynamic",
        [None, None, 2],
        of(layers.Conv2D, 4, 3, groups=2, dilation_rate=2, activation="relu", estimator="ivon"),
        of(
            layers.DepthwiseConv2D,
            3,
            strides=2,
            depth_multiplier=2,
            kernel_prior=priors.Named("Gumbel", {"loc": 0.0, "scale": 1.0}),
        ),
        of(layers.Conv2DTranspose, 3, 3, strides=2, padding="valid", output_padding=1, activation="relu"),
        of(layers.SeparableConv2D, 4, 3, bias_posterior=posteriors.Normal()),
    ),
    stack(
        "layers3d",
        [4, 5, 4, 2],
        of(layers.Conv3D, 4, 3, groups=2, dilation_rate=2, activation="relu", kernel_prior=priors.Moped()),
        of(layers.Conv3DTranspose, 3, 3, strides=2, activation="relu", kernel_prior=priors.Horseshoe()),
    ),
    stack(
        "dense",
        [6],
        of(
            layers.Dense,
            5,
            activation="relu",
            estimator="local_reparameterization",
            kernel_prior=priors.LearnedNormal(),
        ),
    ),
    stack(
        "posteriors",
        [6, 6, 2],
        of(layers.Conv2D, 3, 3, kernel_posterior=posteriors.Gamma(), kernel_prior=priors.LogNormal()),
        of(
            layers.Conv2D, 3, 3, kernel_posterior=posteriors.LogNormal(), kernel_prior=priors.Gamma(), activation="tanh"
        ),
        of(layers.Conv2D, 3, 3, kernel_posterior=posteriors.LowRankNormal(), kernel_prior=priors.ScaleMixture()),
        of(layers.Conv2D, 3, 3, kernel_posterior=posteriors.RankOne(), activation="tanh"),
    ),
    built(
        "heads_of_features",
        [6],
        [
            DIGIT,
            *FEATURE_HEADS,
        ],
        backbones.DenseStack(widths=(8,)),
        range=None,
    ),
    built(
        "own_function",
        [8, 8, 2],
        [DIGIT, heads.Box(name="box"), heads.Normal(name="slant", own=heads.Own(widths=(3,)))],
        backbones.Custom(function="cases:small_features", arguments={"width": 4}),
    ),
    built(
        "unet2d_dynamic",
        [None, None, 2],
        [DIGIT, TISSUE, heads.BernoulliMixture(name="ink", per_position=True)],
        backbones.UNet(widths=(4, 6, 6), depth=1, coordinates=True),
    ),
    built(
        "unet3d_odd",
        [5, 6, 7, 1],
        [DIGIT, TISSUE],
        backbones.UNet(widths=(3, 4), depth=1, normalisation="group"),
    ),
    built(
        "residual_dropout",
        [9, 8, 2],
        [DIGIT, heads.Normal(name="slant", stage="stage1"), heads.Normal(name="help", stage="stage1", auxiliary=True)],
        backbones.Residual(widths=(4, 6), blocks=1, dropout=0.3, mc_dropout=True),
    ),
    built(
        "pretrained",
        [32, 32, 3],
        [DIGIT],
        backbones.Pretrained(model="MobileNetV2", bayesian_last=1),
        colour="rgb",
        range=(0.0, 255.0),
    ),
)
BY_NAME = {case.name: case for case in CASES}
