"""Legacy models of TFP's layers, as users of the legacy Keras have them; runs in a separate process."""

import os
import sys

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras


def laplace(dtype, shape, name, trainable, add_variable):
    """Returns a posterior that is not normal."""
    loc = add_variable(f"{name}_loc", shape, dtype=dtype, initializer="glorot_normal")
    rho = add_variable(f"{name}_untransformed_scale", shape, dtype=dtype, initializer="zeros")
    scale = tfp.util.DeferredTensor(rho, lambda value: 0.1 * tf.nn.softplus(value), name="scale")
    return tfp.distributions.Independent(tfp.distributions.Laplace(loc, scale), len(shape))


def gamma_model() -> tf_keras.Model:
    """Returns a model with a posterior that probrt lacks."""

    def gamma(dtype, shape, name, trainable, add_variable):
        rate = tfp.util.DeferredTensor(add_variable(f"{name}_rate", shape, dtype=dtype), tf.nn.softplus)
        return tfp.distributions.Independent(tfp.distributions.Gamma(2.0, rate), len(shape))

    first = tfp.layers.DenseReparameterization(3, kernel_posterior_fn=gamma, kernel_divergence_fn=None, name="first")
    return tf_keras.Sequential([tf_keras.Input((3,)), first])


def image_model() -> tf_keras.Model:
    """Returns a model with a branch, of Flipout and reparameterised convolutions; it has 3 output channels."""
    images = tf_keras.Input((8, 8, 2))
    first = tfp.layers.Convolution2DFlipout(4, 3, padding="same", activation="relu")(images)
    second = tf_keras.layers.Conv2D(4, 1, kernel_regularizer="l2")(tf_keras.layers.BatchNormalization()(first))
    features = tf_keras.layers.MaxPooling2D(2)(tf_keras.layers.Add()([first, second]))
    features = tfp.layers.Convolution2DReparameterization(
        5, 3, bias_posterior_fn=tfp.layers.default_mean_field_normal_fn()
    )(features)
    features = tfp.layers.Convolution2DReparameterization(
        5,
        1,
        activation="tanh",
        kernel_posterior_fn=laplace,
        kernel_prior_fn=lambda dtype, shape, *_: tfp.distributions.Independent(
            tfp.distributions.StudentT(3.0, tf.zeros(shape, dtype), 0.5), len(shape)
        ),
        kernel_divergence_fn=None,
    )(features)
    features = tfp.layers.Convolution2DReparameterization(
        4, 1, kernel_posterior_fn=tfp.layers.default_mean_field_normal_fn(is_singular=True), kernel_divergence_fn=None
    )(features)
    features = tf_keras.layers.Flatten()(features)
    features = tfp.layers.DenseFlipout(6, activation="tanh")(features)
    return tf_keras.Model(images, tfp.layers.DenseLocalReparameterization(3)(features))


def line_model() -> tf_keras.Model:
    """Returns a Sequential model with a 1-D convolution."""
    return tf_keras.Sequential([
        tf_keras.Input((9, 2)),
        tfp.layers.Convolution1DFlipout(4, 3, padding="same", activation="relu"),
        tf_keras.layers.GlobalAveragePooling1D(),
        tfp.layers.DenseReparameterization(3),
    ])  # fmt: skip


def volume_model() -> tf_keras.Model:
    """Returns a Sequential model with a 3-D convolution."""
    return tf_keras.Sequential([
        tf_keras.Input((4, 4, 4, 1)),
        tfp.layers.Convolution3DReparameterization(3, 3, activation="relu"),
        tf_keras.layers.Flatten(),
        tfp.layers.DenseFlipout(3),
    ])  # fmt: skip


def lambda_model() -> tf_keras.Model:
    """Returns a model with a layer that cannot be adopted."""
    return tf_keras.Sequential([tf_keras.Input((3,)), tf_keras.layers.Lambda(lambda x: x), tfp.layers.DenseFlipout(3)])


def write(name: str, folder: str, runs: int) -> None:
    """Saves the weights, images, the answers of `runs` calls, and the answer at the posterior means."""
    tf_keras.utils.set_random_seed(3)
    model = globals()[name]()
    for layer in model.layers:  # wide posteriors, so that the spread is measurable
        if hasattr(layer, "kernel_posterior"):
            for variable in layer.trainable_variables:
                if "untransformed_scale" in variable.name:
                    variable.assign_add(0.5 + 0 * variable)
    model.save_weights(f"{folder}/weights.h5")
    images = np.random.default_rng(0).normal(size=(4, *model.input_shape[1:])).astype(np.float32)
    answer = tf.function(lambda: model(images, training=False), autograph=False)
    answers = np.stack([answer().numpy() for _ in range(runs)])
    for layer in model.layers:
        if hasattr(layer, "kernel_posterior"):
            if "Deterministic" not in type(layer.kernel_posterior.distribution).__name__:
                layer.kernel_posterior.distribution._scale = 0.0 * layer.kernel_posterior.distribution.scale
            if "Deterministic" not in type(layer.bias_posterior.distribution).__name__:
                layer.bias_posterior.distribution._scale = 0.0 * layer.bias_posterior.distribution.scale
    centre = model(images, training=False).numpy()
    assert np.array_equal(centre, model(images, training=False).numpy())
    np.savez(f"{folder}/answers.npz", images=images, answers=answers, centre=centre)


if __name__ == "__main__":
    write(sys.argv[1], sys.argv[2], int(sys.argv[3]))
