"""The curvature of a linear layer's weights, its inverse as a covariance, and the prior's precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from probrt.trainer.variational.posteriors.full import MAX_WEIGHTS

Floats = npt.NDArray[np.float64]
# Returns the log-likelihood in nats of each example, [n], from the layer's outputs [n, units].
LogLikelihood = Callable[[Floats], Floats]

PRECISIONS = np.logspace(-3, 6, 28)
_DRAWS = 16
# In standard errors of the score.
_TOLERANCE = 0.25


@dataclass(frozen=True)
class Curvature:
    """Eigenvalues and eigenvectors of the curvature: the sum over examples of Lambda kron phi phi^T.

    values: [inputs, units]. vectors: in full [weights, weights]; else a pair for the inputs and for the units, of
    which the eigenvectors are the products.
    """

    values: Floats
    vectors: Floats | tuple[Floats, Floats]

    @classmethod
    def of(cls, features: Floats, hessians: Floats) -> Self:
        """Returns the curvature, in full for up to 4096 weights, else as one Kronecker product.

        features: phi, [n, inputs]. hessians: Lambda, of -log p(y | outputs) by the outputs, [n, units, units].
        """
        shape = (features.shape[1], hessians.shape[1])
        if shape[0] * shape[1] <= MAX_WEIGHTS:
            values, vectors = np.linalg.eigh(sum_curvature(features, hessians))
            return cls(np.maximum(values, 0.0).reshape(shape), vectors)
        inputs, units = np.linalg.eigh(features.T @ features), np.linalg.eigh(hessians.mean(axis=0))
        products = np.outer(np.maximum(inputs[0], 0.0), np.maximum(units[0], 0.0))
        return cls(products, (inputs[1], units[1]))

    def deviations(self, precision: float) -> Floats:
        """Returns the standard deviations of the posterior along the eigenvectors, [inputs, units]."""
        return np.asarray(1.0 / np.sqrt(self.values + precision))

    def factor(self, precision: float) -> Floats:
        """Returns a matrix whose product with its transpose is the full covariance, [weights, weights]."""
        assert isinstance(self.vectors, np.ndarray)
        return np.asarray(self.vectors * self.deviations(precision).reshape(-1))

    def deviate(self, noise: Floats, precision: float) -> Floats:
        """Returns deviations of the weights from their mean, [draws, inputs, units], from noise of this shape."""
        scaled = noise * self.deviations(precision)
        if isinstance(self.vectors, tuple):
            return np.asarray(self.vectors[0] @ scaled @ self.vectors[1].T)
        return np.asarray((scaled.reshape(len(noise), -1) @ self.vectors.T).reshape(noise.shape))


def sum_curvature(features: Floats, hessians: Floats) -> Floats:
    """Returns the curvature in full, [inputs units, inputs units]; features and hessians as for `Curvature.of`."""
    inputs, units = features.shape[1], hessians.shape[1]
    total = np.empty((inputs, units, inputs, units))
    for row in range(units):
        for column in range(row, units):
            block = (features * hessians[:, row, column, None]).T @ features
            total[:, row, :, column] = total[:, column, :, row] = block
    return total.reshape(inputs * units, inputs * units)


def choose_precision(
    curvature: Curvature, mean: Floats, features: Floats, log_likelihood: LogLikelihood, seed: int
) -> float:
    """Returns the smallest precision of the prior N(0, 1 / precision) that predicts held-out examples well.

    The likelihood averaged over draws may be less than the best by a quarter of its standard error: the held-out
    examples cannot tell such posteriors apart, and the widest of them knows most about what it has not seen. The
    precision of the largest evidence (MacKay 1992) is too small for a network that was not fitted under this prior.

    mean: of the weights, [inputs, units]. features: of the examples, [n, inputs].
    """
    noise = np.random.default_rng(seed).normal(size=(_DRAWS, *mean.shape))
    scores = []
    for precision in PRECISIONS:
        draws = [log_likelihood(features @ (mean + deviation)) for deviation in curvature.deviate(noise, precision)]
        scores.append(np.logaddexp.reduce(draws, axis=0) - np.log(len(draws)))
    best = max(scores, key=lambda score: float(score.sum()))
    allowed = _TOLERANCE * best.std() / np.sqrt(len(best))
    return float(next(p for p, score in zip(PRECISIONS, scores, strict=True) if (best - score).mean() <= allowed))
