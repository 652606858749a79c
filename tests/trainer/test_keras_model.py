"""A Keras model of one's own with probabilistic layers: Keras's fit, callbacks, data of every kind, and a directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from finished_models import LABELS, load_digits, write_digits

from probrt.runtime.errors import ConfigError
from probrt.trainer import heads, layers, store
from probrt.trainer.data.arrays import count_examples
from probrt.trainer.fit.objective import total_kl
from probrt.trainer.keras_model import BayesianModel
from probrt.trainer.variational.estimators import TrainingHandler
from probrt.trainer.variational.handlers import MeanHandler, use_handler

IMAGES, DIGITS = load_digits()
SLANTS = (IMAGES.mean(axis=(1, 2, 3)) / 100).astype(np.float32)[:, None]
DIGIT = heads.Categorical(name="digit", labels=LABELS)
SLANT = heads.Normal(name="slant", scale="learned").standardise(SLANTS[:600])


def make_model() -> BayesianModel:
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 1))
    features = keras.layers.Rescaling(1 / 255)(images)
    features = layers.Conv2D(12, 3, activation="relu", kernel_posterior="normal", name="conv")(features)
    features = keras.layers.Flatten()(features)
    outputs = {
        "digit": layers.Dense(DIGIT.channels, name="digit")(features),
        "slant": layers.Dense(SLANT.channels, name="slant")(features),
    }
    return BayesianModel(images, outputs, [DIGIT, SLANT], name="digits")


def targets(rows: slice) -> dict[str, np.ndarray]:
    return {"digit": DIGITS[rows], "slant": SLANTS[rows]}


class Batches(keras.utils.PyDataset):
    """Batches of 50 digits."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int):
        rows = slice(50 * index, 50 * index + 50)
        return IMAGES[rows].astype(np.float32), targets(rows)


@pytest.mark.slow
def test_the_whole_way(tmp_path: Path) -> None:
    model = make_model()
    model.compile(keras.optimizers.Adam(3e-3), metrics={"digit": "accuracy"})
    stop = keras.callbacks.EarlyStopping(monitor="val_loss", patience=20)
    kept = keras.callbacks.ModelCheckpoint(str(tmp_path / "best.weights.h5"), save_weights_only=True)
    known, held_out = slice(0, 600), slice(600, 900)
    history = model.fit(
        IMAGES[known],
        targets(known),
        epochs=15,
        validation_data=(IMAGES[held_out], targets(held_out)),
        callbacks=[stop, kept],
        verbose=0,
    ).history
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert (tmp_path / "best.weights.h5").exists()
    model.calibrate(IMAGES[held_out], targets(held_out), familiar=IMAGES[known])
    rest = slice(900, 1200)
    scores = model.score(IMAGES[rest], targets(rest))
    assert scores["digit"]["accuracy"] > 0.85
    answers = model.predict(IMAGES[rest], draws=8)
    np.testing.assert_allclose(
        answers["digit"]["total"], answers["digit"]["aleatoric"] + answers["digit"]["epistemic"], atol=1e-5
    )
    assert answers["digit"]["epistemic"].mean() > 1e-3
    model.save_directory(tmp_path / "model", IMAGES[known], targets(known))
    loaded, stored = store.load_model(tmp_path / "model")
    with use_handler(MeanHandler()):
        images = IMAGES[rest].astype(np.float32)
        np.testing.assert_allclose(loaded.channels(images)["digit"], model(images)["digit"], atol=1e-6)
    assert loaded.novelty is not None
    assert loaded.calibration == model.model.calibration
    provenance, card = stored.provenance, (tmp_path / "model" / store.CARD).read_text(encoding="utf-8")
    assert [report["name"] for report in provenance["kl"]] == [weight.name for weight in model.model.weights]
    validation = provenance["metrics"]["validation"]
    assert validation["digit"] > 0.85
    assert f"| digit | accuracy | {validation['digit']:.4f} |" in card
    assert f"KL term has weight {provenance['kl_weight']:.3g}, not 1" in card
    assert "600 train, 300 validation" in card


@pytest.mark.slow
def test_a_head_that_has_learned_nothing_is_a_warning(tmp_path: Path) -> None:
    """The model has not been fitted; without targets, or without `calibrate`, nothing can be said."""
    model = make_model()
    known, held_out = slice(0, 100), slice(100, 160)
    model.save_directory(tmp_path / "unmeasured", IMAGES[known], targets(known))
    assert "Not measured" in (tmp_path / "unmeasured" / store.CARD).read_text(encoding="utf-8")
    model.calibrate(IMAGES[held_out], targets(held_out))
    model.save_directory(tmp_path / "without", IMAGES[known])
    assert (tmp_path / "without" / store.CARD).read_text(encoding="utf-8") == "# digits\n"
    with pytest.warns(UserWarning, match="has learned nothing") as warned:
        model.save_directory(tmp_path / "with", IMAGES[known], targets(known))
    notes = [str(warning.message) for warning in warned if "has learned nothing" in str(warning.message)]
    assert [note.partition(":")[0] for note in notes] == ["digit", "slant"]


def test_the_loss_of_a_step_is_the_negative_elbo() -> None:
    model = make_model()
    model.compile("sgd")
    rows = slice(0, 32)
    before = [np.array(value) for value in model.get_weights()]
    loss = model.fit(
        IMAGES[rows], targets(rows), batch_size=32, kl_weight=0.5, train_count=100, verbose=0, shuffle=False
    )
    model.set_weights(before)
    handler = TrainingHandler(0, 0)
    with use_handler(handler):
        channels = model.model.channels(tf.constant(IMAGES[rows], tf.float32), training=True)
        expected = 0.5 * total_kl(model.model, handler) / 100
        for head in (DIGIT, SLANT):
            expected -= tf.reduce_mean(head.log_prob(channels[head.name], tf.constant(targets(rows)[head.name])))
    np.testing.assert_allclose(loss.history["loss"][0], expected, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tf.data", "PyDataset"])
def test_other_data_fit_too(kind: str) -> None:
    batches = Batches()
    if kind == "tf.data":
        batches = tf.data.Dataset.from_tensor_slices((IMAGES[:200].astype(np.float32), targets(slice(0, 200)))).batch(
            50
        )
    assert count_examples(batches) == 200
    model = make_model()
    model.compile()
    assert np.isfinite(model.fit(batches, epochs=1, verbose=0).history["loss"]).all()


def test_losses_of_ones_own_take_the_place_of_the_heads() -> None:
    model = make_model()
    model.compile("sgd", loss={"digit": keras.losses.SparseCategoricalCrossentropy(from_logits=True)})
    rows = slice(0, 64)
    assert np.isfinite(model.fit(IMAGES[rows], {"digit": DIGITS[rows]}, verbose=0).history["loss"]).all()


def test_what_does_not_fit_is_refused() -> None:
    images = keras.Input((8, 8, 1))
    features = keras.layers.Flatten()(images)
    with pytest.raises(ConfigError, match="digit has 3 channels, the head needs 10"):
        BayesianModel(images, {"digit": layers.Dense(3)(features)}, [DIGIT], name="digits")
    with pytest.raises(ConfigError, match="no tensor for the head 'digit'; they name other"):
        BayesianModel(images, {"other": layers.Dense(10)(features)}, [DIGIT], name="digits")
    endless = tf.data.Dataset.from_tensors((IMAGES[:2], targets(slice(0, 2)))).repeat()
    with pytest.raises(ValueError, match="give train_count"):
        count_examples(endless)


@pytest.mark.slow
def test_the_commands_take_a_saved_directory(called: Callable[..., Any], tmp_path: Path) -> None:
    """`evaluate` and `calibrate` have no data of their own there: one line asks for them; with a folder they work."""
    make_model().save_directory(tmp_path / "model", IMAGES[:100].astype(np.float32), targets(slice(0, 100)))
    done = called("evaluate", "model", cwd=tmp_path)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "model: does not name its data; name a folder with --data" in done.err
    done = called("calibrate", "model", "none", cwd=tmp_path)
    assert (done.code, "none: no such folder of labelled images" in done.err) == (2, True)
    write_digits(tmp_path / "digits", 100)
    done = called("evaluate", "model", "--data", "digits", "--resamples", 5, "--samples", 2, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "digit" in done.out
    done = called("calibrate", "model", "digits", "--samples", 2, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "calibrated on 100 images" in done.out
