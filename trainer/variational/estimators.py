"""Training: the handler of one gradient step, and the estimators, which define how a layer uses its draw.

An estimator takes `op`, linear in both its arguments; `affine`, which is `op` plus the layer's bias; the inputs
[batch, …, channels]; the weight and the training handler. It returns the outputs [batch, …, channels].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import tensorflow as tf

from probrt.trainer.variational import philox
from probrt.trainer.variational.handlers import Handler, LinearOp
from probrt.trainer.variational.posteriors.base import Posterior
from probrt.trainer.variational.priors.base import Prior
from probrt.trainer.variational.priors.families import MopedPrior, NormalPrior
from probrt.trainer.variational.random_weight import RandomWeight, make_noise_id


@dataclass(frozen=True)
class TrainingHandler(Handler):
    """One training step: uses draw (seed, step) with each layer's estimator.

    first_row: global position of the batch's first row, so that Flipout's signs do not depend on
        how a batch is split among replicas.
    spread: how far the weights move from the posterior mean towards the draw; 1 is the draw itself.
    """

    seed: tf.Tensor | int
    step: tf.Tensor | int
    first_row: tf.Tensor | int = 0
    spread: tf.Tensor | float = 1.0
    _values: dict[int, tf.Tensor] = field(default_factory=dict)
    _noise: dict[int, tf.Tensor] = field(default_factory=dict)

    def noise(self, weight: RandomWeight) -> tf.Tensor:
        """Returns the noise of this step's draw. Philox makes it, for no step's draw is ever exported."""
        if weight.id not in self._noise:
            source = philox.normal if weight.posterior.noise == "normal" else philox.uniform
            shape = weight.posterior.noise_shape(weight.shape)
            self._noise[weight.id] = source(self.seed, weight.id, self.step, shape)
        return self._noise[weight.id]

    def draw(self, weight: RandomWeight) -> tf.Tensor:
        """Returns the weight of this step's draw, whatever the spread."""
        if weight.id not in self._values:
            self._values[weight.id] = weight.sample(self.noise(weight))
        return self._values[weight.id]

    def value(self, weight: RandomWeight) -> tf.Tensor:
        draw = self.draw(weight)
        if isinstance(self.spread, float) and self.spread == 1.0:
            return draw
        mean = weight.mean()
        return mean + self.spread * (draw - mean)

    def kl(self, weight: RandomWeight) -> tf.Tensor:
        """Returns KL(posterior || prior) in nats, a scalar; on this step's draw where there is no closed form."""
        return weight.kl(self.draw(weight), self.noise(weight))

    def apply(
        self, op: LinearOp, affine: LinearOp, inputs: tf.Tensor, weight: RandomWeight, *, estimator: str
    ) -> tf.Tensor:
        return ESTIMATORS[estimator](op, affine, inputs, weight, self)

    def add_bias(self, outputs: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        return _add_bias(outputs, bias) if outputs.dtype == tf.float32 else super().add_bias(outputs, bias)


@tf.custom_gradient
def _add_bias(outputs: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], list[tf.Tensor]]]:
    """Adds a bias whose gradient is a matrix product.

    TensorFlow joins its own gradient of a bias with the convolution's on a processor, which takes half as long again.
    """

    def pull_back(gradient: tf.Tensor) -> list[tf.Tensor]:
        rows = tf.reshape(gradient, [-1, bias.shape[0]])
        return [gradient, tf.reshape(tf.ones([1, tf.shape(rows)[0]]) @ rows, [-1])]

    return tf.nn.bias_add(outputs, bias), pull_back


def reparameterization(
    op: LinearOp, affine: LinearOp, inputs: tf.Tensor, weight: RandomWeight, handler: TrainingHandler
) -> tf.Tensor:
    """One draw shared by the whole batch (Kingma and Welling 2014)."""
    return affine(inputs, tf.cast(handler.value(weight), inputs.dtype))


def ivon(
    op: LinearOp, affine: LinearOp, inputs: tf.Tensor, weight: RandomWeight, handler: TrainingHandler
) -> tf.Tensor:
    """One draw shared by the whole batch; `fit/ivon.py` makes the step, from a whole draw (Shen et al. 2024)."""
    return affine(inputs, tf.cast(handler.draw(weight), inputs.dtype))


def flipout(
    op: LinearOp, affine: LinearOp, inputs: tf.Tensor, weight: RandomWeight, handler: TrainingHandler
) -> tf.Tensor:
    """Random signs per example and channel decorrelate the examples (Wen et al. 2018, eq. 4).

    y = op(x, centre) + op(x * r, deviation) * s; right only where a weight is symmetric about its centre.
    """
    centre, deviation = weight.split(handler.noise(weight))
    outputs = affine(inputs, tf.cast(centre, inputs.dtype))
    channels_in, channels_out = inputs.shape[-1], outputs.shape[-1]
    signs = philox.row_signs(_row_stream(weight, inputs, handler), channels_in + channels_out)
    deviation = tf.cast(deviation * handler.spread, inputs.dtype)
    flipped = op(_multiply_channels(inputs, signs[:, :channels_in]), deviation)
    return outputs + _multiply_channels(flipped, signs[:, channels_in:])


def local_reparameterization(
    op: LinearOp, affine: LinearOp, inputs: tf.Tensor, weight: RandomWeight, handler: TrainingHandler
) -> tf.Tensor:
    """Normal outputs drawn in place of normal weights (Kingma, Salimans and Welling 2015, eq. 6).

    y ~ Normal(op(x, mean), sqrt(op(x^2, variance))); exact where each weight meets an example once.
    """
    outputs = affine(inputs, tf.cast(weight.mean(), inputs.dtype))
    wide = tf.cast(inputs, tf.float32)
    variance = op(tf.square(wide), tf.square(weight.scale()))
    normals = philox.row_normals(_row_stream(weight, wide, handler), outputs.shape[-1]) * handler.spread
    # The square root has no gradient at 0, where an example's inputs are all 0.
    return outputs + tf.cast(_multiply_channels(tf.sqrt(variance + 1e-12), normals), outputs.dtype)


def resolve_estimator(estimator: str, posterior: Posterior | None, once: bool) -> str:
    """Returns the estimator that `auto` stands for; any other stands for itself.

    once: whether each weight meets an example once (dense rows, 1 x 1 windows on a 1 x 1 map).
    """
    if estimator != "auto":
        return estimator
    if once and posterior is not None and posterior.independent_normal:
        return "local_reparameterization"
    # Flipout's step computes each convolution twice: at equal time the shared draw wins (docs/quality.md).
    return "reparameterization"


def explain_refusal(estimator: str, posterior: Posterior | None, prior: Prior | None = None) -> str | None:
    """Returns why a posterior and its prior cannot be fitted with an estimator, and what would work, else None."""
    if estimator not in (*ESTIMATORS, "auto"):
        return f"estimator {estimator!r} is none of {', '.join((*ESTIMATORS, 'auto'))}"
    if posterior is None:
        return None
    family = posterior.title
    if estimator == "ivon" and not posterior.independent_normal:
        return f"ivon needs a Normal posterior, got {family}; use estimator 'auto'"
    if estimator == "ivon" and not isinstance(prior, NormalPrior | MopedPrior):
        return f"ivon needs a prior that is normal and not trained, got {prior.title if prior else None}; use N(0, 1)"
    if estimator == "flipout" and not posterior.symmetric:
        return (
            f"flipout needs a posterior symmetric about its mean, {family} is not; use estimator 'reparameterization'"
        )
    if estimator == "local_reparameterization" and not posterior.independent_normal:
        other = "flipout" if posterior.symmetric else "reparameterization"
        return f"local_reparameterization needs a Normal posterior, got {family}; use estimator {other!r}"
    return None


def _row_stream(weight: RandomWeight, inputs: tf.Tensor, handler: TrainingHandler) -> philox.RowStream:
    """Returns the stream of the examples' own noise, apart from the weight's."""
    noise_id = make_noise_id(str(weight.id), "examples")
    return philox.RowStream(handler.seed, noise_id, handler.step, handler.first_row, tf.shape(inputs)[0])


def _multiply_channels(values: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Multiplies [batch, *space, channels] by [batch, channels].

    Works on whole lines: a product broadcast over the channels alone takes half as long again.
    """
    factors = tf.cast(factors, values.dtype)
    if len(values.shape) == 2:
        return values * factors
    channels = values.shape[-1]
    line = values.shape[-2] or tf.shape(values)[-2]
    lines = tf.reshape(values, [tf.shape(values)[0], -1, line * channels])
    return tf.reshape(lines * tf.tile(factors, [1, line])[:, None], tf.shape(values))


ESTIMATORS: dict[str, Callable[[LinearOp, LinearOp, tf.Tensor, RandomWeight, TrainingHandler], tf.Tensor]] = {
    "reparameterization": reparameterization,
    "ivon": ivon,
    "flipout": flipout,
    "local_reparameterization": local_reparameterization,
}
