"""IVON against a closed form, through checkpoints, and beside what it cannot do."""

from __future__ import annotations

import itertools

import keras
import msgspec
import numpy as np
import pytest

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import ConfigError
from probrt.trainer import backbones, heads, layers
from probrt.trainer.build import build_model
from probrt.trainer.config.settings import FitSettings
from probrt.trainer.data import Examples
from probrt.trainer.fit.checkpoints import Checkpoints
from probrt.trainer.fit.loop import FitRun, fit_model
from probrt.trainer.layers.split import HeadSplit
from probrt.trainer.layers.weight_settings import WeightSettings
from probrt.trainer.model import Model
from probrt.trainer.variational.parameters import to_scale

pytestmark = pytest.mark.slow

SETTINGS = FitSettings(epochs=300, batch=64, draws=8, learning_rate=1e-3, kl_weight=1.0, clip=1e9)
SMALL = FitSettings(epochs=4, batch=8, learning_rate=1e-3, kl_weight=0.1)
INPUT = Input(shape=[6, 6, 1], colour="none", resize="none", range=(-1.0, 1.0))


def make_images(count: int) -> Examples:
    """Returns noisy pictures of two classes, with their brightness as a second target."""
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (count, 6, 6, 1)).astype(np.float32)
    labels = (images.mean((1, 2, 3)) > 0).astype(np.int32)
    return Examples(tuple(map(str, range(count))), images, {"kind": labels, "bright": images.mean((1, 2))})


def make_model(estimator: str = "ivon", **own: object) -> Model:
    keras.utils.set_random_seed(2)
    head_list = [
        heads.Categorical(name="kind", labels=["a", "b"]),
        heads.Normal(name="bright", own=heads.Own(**own) if own else None),
    ]
    return build_model(
        "two",
        INPUT,
        head_list,
        backbone=backbones.ConvStack(widths=(3,)),
        weights=WeightSettings(estimator=estimator),
    )


def fit(model: Model, settings: FitSettings = SMALL, run: FitRun = FitRun(1), epochs: int | None = None) -> Model:
    reports = fit_model(model, make_images(32), make_images(16), settings=settings, run=run)
    for report in itertools.islice(reports, epochs):
        assert np.isfinite(report.loss)
    return model


def test_reaches_the_closed_form_posterior_of_a_linear_model() -> None:
    """A linear model with normal noise: the best independent normals have the exact mean and 1 / precision_ii."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(64, 4)).astype(np.float32) @ np.diag([0.3, 1.0, 1.0, 2.0]).astype(np.float32)
    noise, prior = 0.5, 0.7
    y = (x @ np.array([1.0, -0.5, 0.3, 0.2]) + rng.normal(scale=noise, size=64)).astype(np.float32)[:, None]
    precision = x.T @ x / noise**2 + np.eye(4) / prior**2
    exact_mean, exact_scale = np.linalg.solve(precision, x.T @ y / noise**2)[:, 0], np.diag(precision) ** -0.5

    keras.utils.set_random_seed(3)
    inputs = keras.Input((4,), name="images")
    dense = layers.Dense(1, use_bias=False, estimator="ivon", kernel_prior={"name": "normal", "scale": prior})
    head = heads.Normal(name="value", scale=noise)
    network = keras.Model(inputs, HeadSplit([("value", 1, 0)])(dense(inputs)))
    model = Model("linear", Input(shape=[4], colour="none", resize="none"), (head,), network)
    examples = Examples(tuple(map(str, range(64))), x, {"value": y})
    for _ in fit_model(model, examples, examples, settings=SETTINGS, run=FitRun(1)):
        pass
    kernel = dense.kernel
    scale = to_scale(kernel.parameters["rho"].value).numpy()[:, 0]
    mean = kernel.mean().numpy()[:, 0]
    print("mean, in exact scales:", (mean - exact_mean) / exact_scale, "scale, relative:", scale / exact_scale)
    np.testing.assert_allclose(mean, exact_mean, atol=0.15 * exact_scale.max())
    np.testing.assert_allclose(scale, exact_scale, rtol=0.1)


def test_a_resumed_fit_has_the_same_bits(tmp_path) -> None:
    whole = fit(make_model())
    checkpoints = Checkpoints(tmp_path)
    fit(make_model(), run=FitRun(1, checkpoints=checkpoints), epochs=2)
    resumed = fit(make_model(), run=FitRun(1, checkpoints=checkpoints, resume=True))
    for expected, actual in zip(whole.network.variables, resumed.network.variables, strict=True):
        np.testing.assert_array_equal(actual.numpy(), expected.numpy(), err_msg=expected.path)


def test_moves_kernels_alone_and_leaves_frozen_layers() -> None:
    model = make_model()
    frozen, *_ = [layer for layer in model.network.layers if isinstance(layer, layers.Conv2D)]
    frozen.trainable = False
    before = {variable.path: variable.numpy() for variable in model.network.variables}
    fit(model, msgspec.structs.replace(SMALL, average=0.5))
    for variable in model.network.variables:
        moved = not np.array_equal(before[variable.path], variable.numpy())
        is_frozen = variable.path.startswith(f"{frozen.name}/")
        assert moved != (is_frozen or "seed" in variable.path), variable.path


def test_refuses_by_name_what_it_cannot_do() -> None:
    with pytest.raises(ConfigError, match=r"ivon needs a fit\.kl_weight above 0"):
        fit(make_model(), msgspec.structs.replace(SMALL, kl_weight=0.0))
    with pytest.raises(ConfigError, match=r"bright: own\.optimizer and own\.learning_rate do not apply to ivon"):
        fit(make_model(learning_rate=0.5))
    with pytest.raises(ValueError, match="ivon needs a Normal posterior, got Laplace"):
        layers.Conv2D(3, 3, kernel_posterior={"name": "laplace"}, estimator="ivon")
    with pytest.raises(ValueError, match="ivon needs a prior that is normal and not trained, got LearnedNormal"):
        layers.Conv2D(3, 3, kernel_prior={"name": "learned_normal"}, estimator="ivon")
