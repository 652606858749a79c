"""One example of every posterior and prior, wide enough for moments to show, and weights made of them."""

import keras
import numpy as np
import tensorflow as tf

from probrt.trainer import layers
from probrt.trainer.variational import posteriors, priors
from probrt.trainer.variational.random_weight import RandomWeight

POSTERIORS: dict[str, posteriors.Posterior] = {
    "normal": posteriors.Normal(0.5),
    "laplace": posteriors.Laplace(0.5),
    "log_normal": posteriors.LogNormal(0.4),
    "normal_mixture": posteriors.NormalMixture(components=3, spread=0.8, initial_scale=0.3),
    "beta": posteriors.Beta(low=-1.0, high=2.0, initial_scale=0.5),
    "gamma": posteriors.Gamma(0.5),
    "low_rank_normal": posteriors.LowRankNormal(rank=2, initial_scale=0.5),
    "full_normal": posteriors.FullNormal(0.5),
    "kronecker_normal": posteriors.KroneckerNormal(0.5),
    "rank_one": posteriors.RankOne(0.3),
    "vae": posteriors.Vae(latent=2, hidden=8, initial_scale=0.3),
}
INDEPENDENT = ("normal", "laplace", "log_normal", "normal_mixture", "beta", "gamma")
PRIORS: dict[str, priors.Prior] = {
    "normal": priors.Normal(0.0, 1.0),
    "learned_normal": priors.LearnedNormal(),
    "moped": priors.Moped(),
    "laplace": priors.Laplace(0.0, 0.5),
    "scale_mixture": priors.ScaleMixture(0.5, 1.0, 0.1),
    "student_t": priors.StudentT(3.0, 0.0, 0.5),
    "cauchy": priors.Cauchy(0.0, 0.5),
    "horseshoe": priors.Horseshoe(0.5),
    "gamma": priors.Gamma(2.0, 2.0),
    "log_normal": priors.LogNormal(-0.5, 1.0),
    "uniform": priors.Uniform(-1.0, 2.0),
    "tfp": priors.Named("Gumbel", {"loc": 0.0, "scale": 1.0}),
}


def weight(family: posteriors.Posterior, prior: priors.Prior | None = None, seed: int = 3) -> RandomWeight:
    """Returns a [3, 2] weight of that family, its parameters jittered so that no two weights are alike."""
    keras.utils.set_random_seed(seed)
    layer = layers.Dense(2, kernel_posterior=family, kernel_prior=prior, name="dense")
    layer.build((None, 3))
    for variable in layer.kernel.parameters.values():
        variable.assign_add(0.3 * tf.random.stateless_normal(variable.shape, [1, seed]))
    return layer.kernel


def draws(weight: RandomWeight, count: int) -> np.ndarray:
    """Returns draws (7, 0) to (7, count - 1), [count, *shape]."""
    noise = weight.noise(7, tf.range(count))
    return tf.function(lambda: tf.map_fn(weight.from_noise, noise), autograph=False)().numpy()


def assert_mean(samples: np.ndarray, expected: np.ndarray, errors: float = 5.0) -> None:
    """Asserts that the mean over axis 0 is within `errors` standard errors of `expected`, elementwise."""
    error = samples.std(0) / np.sqrt(len(samples)) + 1e-6
    away = np.abs(samples.mean(0) - expected) / error
    assert away.max() < errors, f"{away.max():.1f} standard errors away"
