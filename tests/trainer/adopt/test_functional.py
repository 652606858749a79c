"""Finished models become flat networks of logits: nested, subclassed and with augmentation."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from finished_models import make_classifier

from probrt.runtime.errors import ConfigError
from probrt.trainer import heads
from probrt.trainer.adopt.attach import fit_heads
from probrt.trainer.adopt.functional import list_outputs, strip_activation, to_functional

IMAGES = np.random.default_rng(0).uniform(size=(3, 8, 8, 1)).astype(np.float32)
DIGIT = heads.Categorical(name="digit", labels=[str(digit) for digit in range(10)])


def logits_of(model: keras.Model) -> np.ndarray:
    flat = to_functional(model, [8, 8, 1])
    return np.asarray(keras.Model(flat.input, strip_activation(flat.outputs[0], [DIGIT]))(IMAGES, training=True))


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


class Traced(keras.Model):
    """A subclassed model whose call is layers and keras.ops."""

    def __init__(self) -> None:
        super().__init__(name="traced")
        self.conv = keras.layers.Conv2D(4, 3, activation="relu")
        self.dense = keras.layers.Dense(10)

    def call(self, images):
        return keras.ops.softmax(self.dense(keras.ops.mean(self.conv(images), axis=(1, 2))))


class Untraced(keras.Model):
    """A subclassed model whose call looks at values."""

    def call(self, images):
        return images if float(images[0, 0, 0, 0]) > 0 else -images


def nested() -> keras.Model:
    base = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3), keras.layers.ReLU()], name="base")
    images = keras.Input((8, 8, 1))
    features = keras.layers.GlobalAveragePooling2D()(base(keras.layers.RandomFlip()(images)))
    return keras.Model(images, keras.layers.Softmax()(keras.layers.Dense(10)(features)))


@pytest.mark.parametrize("make", [make_classifier, nested, Traced], ids=["layer", "nested", "subclassed"])
def test_the_logits_are_those_of_the_model(make) -> None:
    model = make()
    model(IMAGES)
    expected = np.asarray(model(IMAGES, training=False))
    np.testing.assert_allclose(softmax(logits_of(model)), expected, atol=1e-6)
    np.testing.assert_array_equal(model(IMAGES, training=False), expected)  # the model itself stays as it was


def test_nested_layers_become_nodes_and_augmentation_goes() -> None:
    kinds = [type(layer).__name__ for layer in to_functional(nested(), [8, 8, 1]).layers]
    assert kinds == ["InputLayer", "Conv2D", "ReLU", "GlobalAveragePooling2D", "Dense", "Softmax"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: to_functional(Untraced(), [8, 8, 1]), "cannot be traced"),
        (lambda: strip_activation(make_classifier("sigmoid").outputs[0], [DIGIT]), "last activation is sigmoid"),
        (lambda: fit_heads([DIGIT], [keras.Input((9,))]), "has 9 channels, the heads need 10"),
        (lambda: fit_heads([heads.Poisson(name="count")], [keras.Input((1,))]), "can have the likelihoods categorical"),
        (
            lambda: list_outputs(keras.Model(i := keras.Input((3,)), [i + 1, i + 2, i + 3]), [DIGIT, DIGIT]),
            "the model has 3 outputs, the file 2 heads",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_values_alone_learn_one_scale_and_values_with_scales_keep_theirs() -> None:
    slant = heads.Normal(name="slant")
    assert fit_heads([slant], [keras.Input((1,))])[0].scale == "learned"
    assert fit_heads([slant], [keras.Input((2,))])[0].scale == "predicted"
