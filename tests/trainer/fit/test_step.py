"""One step of every optimizer equals its formula; fits in bfloat16 and on feature vectors learn."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import Input
from probrt.runtime.predict.predictor import load_predictor
from probrt.trainer import backbones, heads, store
from probrt.trainer.build import build_model
from probrt.trainer.config.settings import FitSettings
from probrt.trainer.fit.objective import Objective, resolve_kl_weight
from probrt.trainer.fit.optimizers import kl_weight_at, make_optimizers, spread_at
from probrt.trainer.fit.step import make_train_step
from probrt.trainer.layers.weight_settings import WeightSettings
from probrt.trainer.model import Model
from probrt.trainer.variational.estimators import TrainingHandler
from probrt.trainer.variational.handlers import MeanHandler, use_handler

RATE, COUNT, STEPS, SEED = 0.01, 32, 10, 4
SETTINGS = FitSettings(learning_rate=RATE, warmup=0.0, clip=1e9, kl_weight=0.1, kl_warmup=0.0)


def make_model(own: heads.Own) -> Model:
    """Returns a small stack with two heads, of which the second has layers of its own."""
    keras.utils.set_random_seed(2)
    head_list = [heads.Categorical(name="kind", labels=["a", "b"]), heads.Normal(name="bright", own=own)]
    input = Input(shape=[6, 6, 1], colour="none", resize="none", range=(-1.0, 1.0))
    backbone = backbones.ConvStack(widths=(3,), depth=1, normalisation="none")
    return build_model("two", input, head_list, backbone=backbone, weights=WeightSettings())


def make_batch() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    targets = {"kind": tf.constant([0, 1, 1, 0]), "bright": tf.constant(rng.normal(size=(4, 1)), tf.float32)}
    images = tf.constant(rng.uniform(-1, 1, (4, 6, 6, 1)), tf.float32)
    return {"images": images, "targets": targets, "first_row": tf.constant(0), "count": tf.constant(4.0)}


def compute_gradients(model: Model, objective: Objective, batch: dict[str, Any]) -> list[np.ndarray]:
    """Computes the gradients of the first step's loss independently of make_train_step."""
    with tf.GradientTape() as tape, use_handler(TrainingHandler(SEED, tf.constant(0), batch["first_row"])) as handler:
        channels = model.channels(batch["images"], training=True)
        loss = tf.reduce_mean(objective.loss(objective.log_likelihoods(channels, batch["targets"])))
        kl = tf.add_n([handler.kl(weight) for weight in model.weights])
        loss += kl_weight_at(tf.constant(0), SETTINGS, STEPS) * kl / COUNT
    gradients = tape.gradient(loss, [variable.value for variable in model.network.trainable_variables])
    return [gradient.numpy() for gradient in gradients]


@pytest.mark.parametrize(("optimizer", "factor"), [("sgd", 1.0), ("sgd", 3.0), ("adamw", 0.5), (None, 2.0)])
def test_the_optimizer_of_a_head_updates_its_own_layers_only(optimizer: str | None, factor: float) -> None:
    """Adam's first step changes every value by its rate against the gradient's sign; AdamW adds 0.004 of the value."""
    model = make_model(heads.Own(widths=(2,), optimizer=optimizer, learning_rate=factor))
    objective, batch = Objective(model), make_batch()
    variables = model.network.trainable_variables
    values, slopes = [variable.numpy() for variable in variables], compute_gradients(model, objective, batch)
    own = {variable.path for variable in model.head_variables(model.heads[1])}
    assert own
    assert len(own) < len(variables)
    optimizers = make_optimizers(model, objective, SETTINGS, STEPS, COUNT)
    assert sorted(v.path for group in optimizers for v in group.variables) == sorted(v.path for v in variables)
    train_step = make_train_step(model, objective, optimizers, SETTINGS, train_count=COUNT, steps=STEPS, seed=SEED)
    assert train_step(batch, 0).finite
    for variable, value, slope in zip(variables, values, slopes, strict=True):
        rate = RATE * factor if variable.path in own else RATE
        name = optimizer if variable.path in own and optimizer else "adam"
        if name == "sgd":
            expected = value - rate * slope
        else:
            # Adam's first step (Kingma and Ba 2015): both averages, corrected, are the gradient and its square.
            decay = 0.004 * value if name == "adamw" else 0.0
            expected = value - rate * (slope / (np.abs(slope) + 1e-7) + decay)
        # Gradients differ by rounding (1e-6 relative), which shows beside Adam's 1e-7 where they are tiny.
        clear = np.abs(slope) > 1e-4
        np.testing.assert_allclose(variable.numpy()[clear], expected[clear], rtol=1e-4, atol=1e-5 * rate / RATE)


def test_the_noise_rises_over_its_warmup() -> None:
    settings = FitSettings(noise_warmup=0.5)
    assert [float(spread_at(tf.constant(step), settings, 8)) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert spread_at(tf.constant(0), FitSettings(), 8) == 1.0


@pytest.mark.slow
def test_the_noise_of_a_step_follows_the_warmup() -> None:
    """Two seeds differ by their noise alone: by about a hundredth of it at the first of a hundred steps of warm-up."""

    def first_loss(seed: int, warmup: float) -> float:
        settings = FitSettings(warmup=0.0, kl_weight=0.1, kl_warmup=0.0, noise_warmup=warmup)
        model = make_model(heads.Own(widths=(2,)))
        objective = Objective(model)
        optimizers = make_optimizers(model, objective, settings, 100, COUNT)
        step = make_train_step(model, objective, optimizers, settings, train_count=COUNT, steps=100, seed=seed)
        return step(make_batch(), 0).loss

    whole = abs(first_loss(1, 0.0) - first_loss(2, 0.0))
    assert abs(first_loss(1, 1.0) - first_loss(2, 1.0)) < 0.05 * whole


FEATURES = """
name = "plants"
[data]
folder = "data"
features = ["x", "y"]
[input]
shape = [2]
colour = "none"
resize = "none"
[backbone]
name = "dense"
widths = [16]
[[heads]]
name = "kind"
likelihood = "categorical"
labels = ["a", "b"]
[[heads]]
name = "height"
likelihood = "normal"
[fit]
epochs = 30
batch = 32
learning_rate = 2e-2
kl_weight = 0.05
precision = "PRECISION"
"""


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_table_s_columns_are_features(tmp_path: Path, precision: str, called: Callable[..., Any]) -> None:
    """The table's columns are the input, without files. The saved model is float32, whatever the fit's precision."""
    (tmp_path / "data").mkdir()
    rng = np.random.default_rng(0)
    points = rng.normal(size=(400, 2))
    with (tmp_path / "data" / "metadata.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["split", "x", "y", "kind", "height"])
        for row, (x, y) in enumerate(points):
            split = ("train", "train", "train", "validation", "test")[row % 5]
            table.writerow([split, x, y, "ab"[int(x + y > 0)], 2 * x - y + rng.normal(0, 0.1)])
    (tmp_path / "config.toml").write_text(FEATURES.replace("PRECISION", precision))
    assert called("train", "config.toml", "--out", "model", cwd=tmp_path).code == 0
    model, stored = store.load_model(tmp_path / "model")
    scores = stored.provenance["metrics"]["test"]
    # Of 80 rows only those nearest to the border may be wrong. Heights have a standard deviation of 2.2.
    assert scores["kind"] > 0.9
    assert scores["height"] < 0.4
    assert {layer.compute_dtype for layer in model.network.layers} == {"float32"}
    if precision != "float32":
        return
    assert called("export", "model", "--formats", "tflite", "--draws", "8", "--no-select", cwd=tmp_path).code == 0
    answers = load_predictor(Bundle.open(tmp_path / "artifacts" / "plants"))(points[:5].astype(np.float32))
    assert answers["kind"].epistemic.max() > 0
    with use_handler(MeanHandler()):
        at_mean = model.moments(points[:5].astype(np.float32))
    # The mean over draws differs from the answer at the mean weights by a fraction of the spread.
    spread = np.sqrt(answers["height"].epistemic)
    assert (np.abs(answers["height"].mean - at_mean["height"].mean.numpy()) < 3 * spread + 0.1).all()


@pytest.mark.parametrize("train_count", [10, 100000])
def test_the_kl_of_more_weights_than_examples_counts_less(train_count: int) -> None:
    model = make_model(heads.Own(widths=(3,), kernel=1))
    count = sum(int(np.prod(weight.shape)) for weight in model.weights)
    settings = resolve_kl_weight(FitSettings(), model, train_count)
    assert settings.kl_factor == min(1.0, 0.03 * train_count / count)
    assert resolve_kl_weight(FitSettings(kl_weight=0.3), model, train_count).kl_factor == 0.3
