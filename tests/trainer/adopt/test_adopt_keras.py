"""From a finished model to a model directory: the same means, a spread, calibration and novelty."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from finished_models import CARD, load_digits, make_classifier, train, write_digits

from probrt.trainer import store
from probrt.trainer.variational.handlers import DrawHandler, MeanHandler, use_handler


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, keras.Model]:
    """A folder with a finished model, its heads and labelled images; and the model."""
    folder = tmp_path_factory.mktemp("adopt")
    write_digits(folder / "digits")
    (folder / "heads.toml").write_text(CARD)
    model = train(make_classifier())
    model.save(folder / "digits.keras")
    return folder, model


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as that of `place`, with few images and a model that has not been trained, for what is refused."""
    folder = tmp_path_factory.mktemp("untrained")
    write_digits(folder / "digits", 50)
    (folder / "heads.toml").write_text(CARD)
    make_classifier().save(folder / "digits.keras")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("method", ["laplace", "moped", "swag"])
def test_a_classifier_becomes_bayesian(
    place: tuple[Path, keras.Model], called: Callable[..., Any], method: str, tmp_path: Path
) -> None:
    folder, model = place
    out = tmp_path / "model"
    words = ["adopt", "digits.keras", "--heads", "heads.toml", "--data", "digits", "--method", method, "--out", out]
    done = called(*words, *(["--steps", 5] if method == "moped" else []), cwd=folder)
    assert done.code == 0, done.err
    assert "pixel values: 0 to 1" in done.out
    assert "next: probrt export" in done.out
    adopted, stored = store.load_model(out)
    images = load_digits()[0][800:].astype(np.float32)
    with use_handler(MeanHandler()):
        mean = tf.nn.softmax(adopted.channels(images)["digit"]).numpy()
    expected = np.asarray(model(images / 255.0, training=False))
    if method == "laplace":
        np.testing.assert_allclose(mean, expected, atol=1e-5)
    with use_handler(DrawHandler(0, 1)):
        assert np.abs(tf.nn.softmax(adopted.channels(images)["digit"]) - mean).max() > 1e-3
    scores = stored.provenance["scores"]
    # The split has 200 examples: accuracy within two standard errors, 0.03, and no worse likelihood than that of noise.
    assert scores["after"]["digit"]["accuracy"] > scores["before"]["digit"]["accuracy"] - 0.03
    assert scores["after"]["digit"]["NLL"] < scores["before"]["digit"]["NLL"] + 0.05
    assert adopted.novelty is not None
    assert adopted.calibration[0].conformal
    assert called("evaluate", out, "--resamples", 5, cwd=folder).code == 0
    assert "by " + method in (out / "card.md").read_text()


@pytest.mark.slow
def test_values_in_the_targets_units_become_a_normal_head(
    place: tuple[Path, keras.Model], called: Callable[..., Any], tmp_path: Path
) -> None:
    folder, _ = place
    images, _ = load_digits()
    slant = images.mean(axis=(1, 2, 3)) / 10 + 5
    keras.utils.set_random_seed(2)
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(1)])
    solution = np.linalg.lstsq(np.c_[images.reshape(-1, 64), np.ones(len(images))], slant, rcond=None)[0]
    model.layers[-1].set_weights([solution[:64, None] + 0.002, solution[64:]])
    model.save(tmp_path / "slant.keras")
    (tmp_path / "heads.toml").write_text('values = "0 to 255"\n[[heads]]\nname = "slant"\nlikelihood = "normal"\n')
    words = ["--heads", tmp_path / "heads.toml", "--data", folder / "digits"]
    done = called("adopt", "slant.keras", *words, cwd=tmp_path)
    assert done.code == 0, done.err
    adopted, _ = store.load_model(tmp_path / "model")
    with use_handler(MeanHandler()):
        mean = adopted.moments(images[800:].astype(np.float32))["slant"].mean.numpy()
    np.testing.assert_allclose(mean, model(images[800:].astype(np.float32)), rtol=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["digits.keras"], "a Keras model takes MODEL.keras --heads heads.toml --data FOLDER"),
        (["digits.keras", "--heads", "heads.toml"], "a Keras model takes"),
        (["digits.keras", "w.h5", "--heads", "heads.toml", "--data", "digits"], "a Keras model takes"),
        (["digits.keras", "--heads", "heads.toml", "--data", "none"], "no such folder of labelled images"),
        (["none.keras", "--heads", "heads.toml", "--data", "digits"], "no such file; save the model"),
        (["finished:none", "--heads", "heads.toml", "--data", "digits"], "no such function"),
        (["digits.keras", "--heads", "digits.keras", "--data", "digits"], "digits.keras: "),
    ],
)
def test_wrong_words_are_refused(
    untrained: Path, called: Callable[..., Any], words: list[str], message: str, tmp_path: Path
) -> None:
    done = called("adopt", *words, "--out", tmp_path / "model", cwd=untrained)
    assert done.code == 2, done.err
    assert message in done.err
    assert done.err.count("\n") == 1


def test_a_layer_too_few_for_all_outputs_is_refused(
    untrained: Path, called: Callable[..., Any], tmp_path: Path
) -> None:
    images = keras.Input((8, 8, 1))
    features = keras.layers.Flatten()(images)
    outputs = [keras.layers.Dense(10, name="digit")(features), keras.layers.Dense(1, name="slant")(features)]
    keras.Model(images, outputs).save(tmp_path / "two.keras")
    (tmp_path / "heads.toml").write_text(CARD + '[[heads]]\nname = "slant"\nlikelihood = "normal"\n')
    words = ["--heads", "heads.toml", "--data", untrained / "digits", "--method", "moped", "--last", 1]
    done = called("adopt", "two.keras", *words, cwd=tmp_path)
    assert done.code == 2, done.err
    assert "--last 1: no layer with random weights comes before digit" in done.err
