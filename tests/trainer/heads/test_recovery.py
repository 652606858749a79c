"""A head fitted to simulated data finds the parameters it was simulated with, and its intervals hold."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from head_examples import HEADS, channels

from probrt.trainer import heads

COUNT = 4000


@pytest.mark.parametrize("head", {type(head): head for head in HEADS}.values(), ids=lambda head: head.name)
def test_recovery_and_coverage(head: heads.AnyHead) -> None:
    """Channels fitted by maximum likelihood to 4,000 values of one likelihood.

    Mean and spread: within 5 standard errors of the values' own; intervals of 50 and 90 %: within 4 standard errors
    of a share of 4,000 (their ends are quantiles of 20,000 simulated values, whose error is smaller).
    """
    true = channels(head, draw=9, spread=0.5)[:1]
    values = head.distribution(true).sample(COUNT, seed=(1, 1))[:, 0]
    values = tf.cast(values, tf.int32 if head.kind == "class" else tf.float32)
    fitted = tf.Variable(channels(head, draw=10, spread=0.1)[:1])
    optimizer = tf.keras.optimizers.Adam(0.1)

    @tf.function(autograph=False)
    def step() -> None:
        with tf.GradientTape() as tape:
            given = tf.broadcast_to(fitted, [COUNT, *fitted.shape[1:]])
            loss = -tf.reduce_mean(head.log_prob(given, values))
        optimizer.apply_gradients([(tape.gradient(loss, fitted), fitted)])

    for _ in range(250):
        step()
    expected, recovered = head.moments(true), head.moments(tf.convert_to_tensor(fitted))
    if head.kind != "real":
        share = expected.mean.numpy()
        np.testing.assert_array_less(np.abs(recovered.mean - share), 5 * np.sqrt(share * (1 - share) / COUNT) + 1e-3)
        return
    drawn = values.numpy().astype(np.float64)
    deviation = drawn.std(0)
    np.testing.assert_array_less(np.abs(recovered.mean[0] - expected.mean[0]), 5 * deviation / np.sqrt(COUNT) + 1e-3)
    # Error of a variance: sqrt((kurtosis - 1) / n) of itself.
    kurtosis = ((drawn - drawn.mean(0)) ** 4).mean(0) / deviation**4
    error = 5 * np.sqrt((kurtosis - 1) / COUNT) * deviation**2
    np.testing.assert_array_less(np.abs(recovered.aleatoric[0] - expected.aleatoric[0]), error + 1e-4)
    simulated = head.distribution(tf.convert_to_tensor(fitted)).sample(20_000, seed=(2, 2))[:, 0].numpy()
    for coverage in (0.5, 0.9):
        low, high = np.quantile(simulated, [0.5 - coverage / 2, 0.5 + coverage / 2], axis=0)
        held = ((drawn >= low) & (drawn <= high)).mean(0)
        slack = 4 * np.sqrt(coverage * (1 - coverage) * (1 / COUNT + 1 / 20_000))
        assert (held >= coverage - slack).all()
        if (drawn % 1).any():  # an interval of whole numbers holds more
            assert (held <= coverage + slack).all()
