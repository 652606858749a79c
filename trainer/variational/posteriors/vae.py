"""Weights that a variational autoencoder of filters makes: a hypernetwork (Ha et al. 2017; Kingma and Welling 2014)."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar

import tensorflow as tf
from msgspec import Meta

from probrt.trainer.variational.parameters import (
    Parameter,
    Parameters,
    Positive,
    compute_he_scale,
    constant_start,
    normal_start,
    softplus_inverse,
    to_scale,
)
from probrt.trainer.variational.posteriors.base import Posterior, compute_kl

Size = Annotated[int, Meta(ge=1)]


class VaePosterior(Posterior, frozen=True, tag="vae"):
    """An encoder maps each filter of a trained anchor kernel to a latent normal, a decoder the latent to the filter.

    With filters a [out, n] of the anchor [*window, in, out], n = prod(window) in:
        z ~ Normal(mean(a), scale(a)), by one hidden tanh layer;
        filter ~ Normal(loc(z), scale(z)), by one hidden sine layer (Sitzmann et al. 2020), because the mean of a
        sine of a normal is exp(-variance / 2) sin(mean): the posterior mean is exact, with ops of every format.
    Its KL is the bound KL(q(z) || N(0, 1)) + E[KL(q(filter | z) || prior)], on the draw in use, plus the
    reconstruction -log Normal(a; loc(z), reconstruction_scale). Flipout flips the filter's normal given z.

    latent, hidden: sizes. initial_scale, reconstruction_scale: as parts of the He scale.
    """

    symmetric: ClassVar[bool] = True
    kernel_only: ClassVar[bool] = True
    latent: Size = 4
    hidden: Size = 32
    initial_scale: Positive = 0.1
    reconstruction_scale: Positive = 0.5

    def parameters(self, shape: tuple[int, ...], fan_in: int) -> dict[str, Parameter]:
        size, small = math.prod(shape[:-1]), self.initial_scale * compute_he_scale(fan_in)
        zeros, hidden = constant_start(0.0), self.hidden
        return {
            "anchor": Parameter(shape, normal_start(compute_he_scale(fan_in))),
            "encoder_kernel": Parameter(
                (size, hidden), normal_start(1.0 / (compute_he_scale(fan_in) * math.sqrt(size)))
            ),
            "encoder_bias": Parameter((hidden,), zeros),
            "latent_mean_kernel": Parameter((hidden, self.latent), normal_start(1.5 / math.sqrt(hidden))),
            "latent_rho_kernel": Parameter((hidden, self.latent), zeros),
            "latent_rho_bias": Parameter((self.latent,), constant_start(softplus_inverse(0.1))),
            "decoder_kernel": Parameter((self.latent, hidden), normal_start(1.5)),
            "decoder_bias": Parameter((hidden,), normal_start(1.5)),
            "loc_kernel": Parameter((hidden, size), normal_start(compute_he_scale(fan_in) * math.sqrt(2.0 / hidden))),
            "loc_bias": Parameter((size,), zeros),
            "rho_kernel": Parameter((hidden, size), zeros),
            "rho_bias": Parameter((size,), constant_start(softplus_inverse(small))),
        }

    def noise_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[-1] * (self.latent + math.prod(shape[:-1])),)

    def from_noise(self, parameters: Parameters, noise: tf.Tensor) -> tf.Tensor:
        centre, deviation = self.split(parameters, noise)
        return centre + deviation

    def split(self, parameters: Parameters, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        anchor = parameters["anchor"]
        loc, scale = self._decode(parameters, self._draw_latent(parameters, noise))
        own = tf.reshape(noise[anchor.shape[-1] * self.latent :], anchor.shape)
        return _to_kernel(loc, anchor), _to_kernel(scale, anchor) * own

    def mean(self, parameters: Parameters) -> tf.Tensor:
        centre, scale = self._encode(parameters)
        angle = tf.matmul(centre, parameters["decoder_kernel"]) + parameters["decoder_bias"]
        variance = tf.matmul(tf.square(scale), tf.square(parameters["decoder_kernel"]))
        sine = tf.exp(-0.5 * variance) * tf.sin(angle)
        return _to_kernel(tf.matmul(sine, parameters["loc_kernel"]) + parameters["loc_bias"], parameters["anchor"])

    def distribution(self, parameters: Parameters) -> Any:
        """Returns the distribution of the latents, [out, latent]."""
        import tensorflow_probability as tfp

        return tfp.distributions.Normal(*self._encode(parameters))

    def kl(self, parameters: Parameters, prior: Any, value: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
        import tensorflow_probability as tfp

        tfd = tfp.distributions
        anchor = parameters["anchor"]
        loc, scale = self._decode(parameters, self._draw_latent(parameters, noise))
        filters = tfd.Normal(_to_kernel(loc, anchor), _to_kernel(scale, anchor))
        size = math.prod(anchor.shape[:-1])
        reconstruction = tfd.Normal(filters.loc, self.reconstruction_scale * compute_he_scale(size))
        latent = tf.reduce_sum(self.distribution(parameters).kl_divergence(tfd.Normal(0.0, 1.0)))
        return latent + compute_kl(filters, prior, value) - tf.reduce_sum(reconstruction.log_prob(anchor))

    def _encode(self, parameters: Parameters) -> tuple[tf.Tensor, tf.Tensor]:
        anchor = parameters["anchor"]
        filters = tf.transpose(tf.reshape(anchor, [-1, anchor.shape[-1]]))
        hidden = tf.tanh(tf.matmul(filters, parameters["encoder_kernel"]) + parameters["encoder_bias"])
        rho = tf.matmul(hidden, parameters["latent_rho_kernel"]) + parameters["latent_rho_bias"]
        return tf.matmul(hidden, parameters["latent_mean_kernel"]), to_scale(rho)

    def _draw_latent(self, parameters: Parameters, noise: tf.Tensor) -> tf.Tensor:
        centre, scale = self._encode(parameters)
        filters = parameters["anchor"].shape[-1]
        return centre + scale * tf.reshape(noise[: filters * self.latent], [filters, self.latent])

    def _decode(self, parameters: Parameters, latent: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        hidden = tf.sin(tf.matmul(latent, parameters["decoder_kernel"]) + parameters["decoder_bias"])
        loc = tf.matmul(hidden, parameters["loc_kernel"]) + parameters["loc_bias"]
        return loc, to_scale(tf.matmul(hidden, parameters["rho_kernel"]) + parameters["rho_bias"])


def _to_kernel(filters: tf.Tensor, anchor: tf.Tensor) -> tf.Tensor:
    """Reshapes filters [out, n] to the kernel's shape."""
    return tf.reshape(tf.transpose(filters), anchor.shape)
