"""Deterministic models made Bayesian: MOPED's means and scales, selection, keras.applications."""

import keras
import numpy as np
import pytest

from probrt.trainer.layers.from_keras import to_bayesian
from probrt.trainer.variational.handlers import DrawHandler, MeanHandler, use_handler
from probrt.trainer.variational.posteriors.bounded import GammaPosterior
from probrt.trainer.variational.posteriors.location_scale import LaplacePosterior
from probrt.trainer.variational.posteriors.structured import LowRankNormalPosterior
from probrt.trainer.variational.random_weight import find_random_weights


def small() -> keras.Model:
    keras.utils.set_random_seed(1)
    images = keras.Input((8, 8, 2))
    features = keras.layers.Conv2D(4, 3, activation="relu", name="first", bias_initializer="normal")(images)
    features = keras.layers.BatchNormalization()(features)
    inner = keras.Sequential([keras.layers.Conv2D(4, 1, name="second"), keras.layers.ReLU()], name="inner")
    features = keras.layers.Add()([features, inner(features)])
    features = keras.layers.GlobalAveragePooling2D()(features)
    return keras.Model(images, keras.layers.Dense(3, activation="softmax", name="last")(features))


@pytest.mark.slow
@pytest.mark.parametrize(
    "posterior",
    [None, LaplacePosterior(), LowRankNormalPosterior(rank=3)],
    ids=["Normal", "LaplacePosterior", "LowRankNormalPosterior"],
)
def test_moped_centres_on_the_trained_weights(posterior):
    model = small()
    bayesian = to_bayesian(model, delta=0.2, bias=True, **({"posterior": posterior} if posterior else {}))
    weights = {weight.name: weight for weight in find_random_weights(bayesian)}
    assert sorted(weights) == sorted(
        f"{layer}/{part}" for layer in ("first", "second", "last") for part in ("kernel", "bias")
    )
    trained = np.asarray(model.get_layer("first").kernel)
    weight = weights["first/kernel"]
    np.testing.assert_allclose(weight.mean(), trained, atol=1e-7)
    np.testing.assert_allclose(weight.prior_parameters["anchor"], trained, atol=1e-7)
    draws = np.stack([weight.draw(0, index) for index in range(1000)])
    # The standard deviation of 1,000 draws has relative error 2.2% (Laplace's 3.5%); 72 weights.
    np.testing.assert_allclose(draws.std(0), np.maximum(0.2 * np.abs(trained), 2e-4), rtol=0.16)
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 2)).astype(np.float32)
    with use_handler(MeanHandler()):
        np.testing.assert_allclose(bayesian(x), model(x), atol=1e-6)
    with use_handler(DrawHandler(0, 1)):
        assert np.abs(bayesian(x) - model(x)).max() > 1e-3


def test_layers_are_chosen_by_pattern_or_from_the_end():
    def names(**settings) -> list[str]:
        return [weight.name for weight in find_random_weights(to_bayesian(small(), **settings))]

    assert names(pattern="^(first|last)$") == ["first/kernel", "last/kernel"]
    assert names(last=1) == ["last/kernel"]
    assert names(pattern="first|second", last=1) == ["second/kernel"]


@pytest.mark.slow
def test_keras_applications_become_bayesian():
    keras.utils.set_random_seed(1)
    model = keras.applications.MobileNetV2(input_shape=(32, 32, 3), weights=None, classes=5, alpha=0.35)
    bayesian = to_bayesian(model, last=3)
    assert len(find_random_weights(bayesian)) == 3
    x = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    with use_handler(MeanHandler()):
        np.testing.assert_allclose(bayesian(x, training=False), model(x, training=False), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"delta": 0.0}, "delta is 0.0, must be above 0"),
        ({"pattern": "nothing"}, "pattern 'nothing' matches none of first, second, last"),
        (
            {"posterior": GammaPosterior(), "prior": {"name": "gamma"}},
            "Gamma cannot be centred on given weights; use Normal, Laplace",
        ),
    ],
)
def test_what_cannot_be_made_is_refused(settings, message):
    with pytest.raises(ValueError) as error:
        to_bayesian(small(), **settings)
    assert str(error.value).startswith(message)


def test_a_model_without_fitting_layers_is_refused():
    inputs = keras.Input((3,))
    with pytest.raises(ValueError, match="has no layer that can become Bayesian"):
        to_bayesian(keras.Model(inputs, keras.layers.ReLU()(inputs)))
