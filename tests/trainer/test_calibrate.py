"""Calibration finds the temperature and the scale that were put in."""

from __future__ import annotations

import numpy as np
import pytest
from cases import BY_NAME

from probrt.trainer.calibrate import calibrated
from probrt.trainer.data import Examples


def test_targets_drawn_from_the_model_need_no_correction_and_spread_ones_do() -> None:
    """4,000 labels of the model's own predictive distribution: temperature and scale 1 within 10 %.

    The log-likelihood's curvature at 1 is about 1 nat per label for the scale (2 for a normal) and 0.2 for the
    temperature: standard errors of 1 % and 4 %, and the grid is 5 % wide.
    """
    model = BY_NAME["conv2d_random_bias"].model()
    rng = np.random.default_rng(0)
    images = rng.normal(0, 3, (4000, 8, 8, 2)).astype(np.float32)
    from probrt.trainer import weights

    with weights.reading(weights.Mean()):
        moments = model.moments(images)
    probabilities = moments["digit"][0].numpy()
    digit = (rng.uniform(size=(4000, 1)) > probabilities.cumsum(1)).sum(1).clip(0, 2).astype(np.int32)
    location, variance = (value.numpy() for value in moments["slant"])
    for factor in (1.0, 2.0):
        slant = (location + factor * np.sqrt(variance) * rng.normal(size=location.shape)).astype(np.float32)
        examples = Examples(tuple(map(str, range(4000))), images, {"digit": digit, "slant": slant})
        for weight in model.weights:  # next to no spread, so that the mean is the predictive distribution
            weight.parameters["rho"].assign(np.full(weight.shape, -12.0, np.float32))
        found = {one.head: one for one in calibrated(model, examples, seed=0, draws=2).calibration}
        assert found["digit"].temperature == pytest.approx(1.0, abs=0.1)
        assert found["slant"].scale == pytest.approx(factor, rel=0.1)
