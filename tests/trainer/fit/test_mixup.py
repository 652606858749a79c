"""Mixup: shares, partners, what the loss is, and where it applies."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from probrt.runtime.errors import ConfigError
from probrt.trainer import heads
from probrt.trainer.config.settings import FitSettings
from probrt.trainer.fit.mixup import check_mixup, mix_batches, mixed_log_likelihoods

KIND = heads.Categorical(name="kind", labels=["a", "b", "c"])
SLANT = heads.Normal(name="slant")
INK = heads.Bernoulli(name="ink", per_position=True)


def mix(steps: range, rows: int = 64, concentration: float = 0.2) -> list[dict[str, np.ndarray]]:
    """Batches in which the picture of row i has the value i, with class i % 3, mixed."""
    numbers = np.arange(rows)
    images = tf.constant(np.broadcast_to(numbers[:, None, None, None], (rows, 4, 4, 1)).astype(np.float32))
    batch = {"images": images, "targets": {"kind": tf.constant((numbers % 3).astype(np.int32))}}
    batches = tf.data.Dataset.from_tensors(batch).repeat(len(steps))
    return [
        tf.nest.map_structure(np.asarray, mixed)
        for mixed in mix_batches(batches, concentration, seed=3, steps=steps).as_numpy_iterator()
    ]


def test_images_and_partners_are_mixed_by_the_same_share() -> None:
    (batch,) = mix(range(5, 6))
    numbers, share = np.arange(64), batch["share"]
    assert ((share >= 0.5) & (share <= 1)).all()
    np.testing.assert_allclose(batch["images"][:, 2, 1, 0], share * numbers + (1 - share) * numbers[::-1], rtol=1e-5)
    np.testing.assert_array_equal(batch["targets"]["kind"], numbers % 3)
    np.testing.assert_array_equal(batch["partners"]["kind"], numbers[::-1] % 3)


@pytest.mark.parametrize("concentration", [0.05, 0.2, 1.0])
def test_the_larger_share_has_the_distribution_of_the_larger_of_two_beta_shares(concentration: float) -> None:
    """Against NumPy's Beta: 6,400 shares each; the bound is the Kolmogorov-Smirnov one at a level of 1e-6."""
    share = np.sort(np.concatenate([batch["share"] for batch in mix(range(100), concentration=concentration)]))
    drawn = np.random.default_rng(0).beta(concentration, concentration, len(share))
    drawn = np.sort(np.maximum(drawn, 1 - drawn))
    grid = np.linspace(0.5, 1, 101)[:-1]
    gap = np.abs(np.searchsorted(share, grid) - np.searchsorted(drawn, grid)).max() / len(share)
    assert gap < np.sqrt(-0.5 * np.log(1e-6 / 2) * 2 / len(share))


def test_shares_depend_on_the_step_alone() -> None:
    whole, rest = mix(range(6)), mix(range(4, 6))
    for before, after in zip(whole[4:], rest, strict=True):
        np.testing.assert_array_equal(before["share"], after["share"])
        np.testing.assert_array_equal(before["images"], after["images"])
    assert not np.array_equal(whole[0]["share"], whole[1]["share"])


def test_the_log_likelihood_is_that_of_both_targets_by_their_shares() -> None:
    class Fixed:
        """Gives each target the log-likelihood of minus its number."""

        def log_likelihoods(self, channels: dict, targets: dict) -> dict:
            return {name: -tf.cast(value, tf.float32) for name, value in targets.items()}

    batch = {
        "targets": {"kind": tf.constant([0, 1, 2])},
        "partners": {"kind": tf.constant([2, 1, 0])},
        "share": tf.constant([0.75, 0.5, 1.0]),
    }
    np.testing.assert_allclose(mixed_log_likelihoods(Fixed(), {}, batch)["kind"], [-0.5, -1.0, -2.0])  # type: ignore[arg-type]
    del batch["partners"]
    np.testing.assert_allclose(mixed_log_likelihoods(Fixed(), {}, batch)["kind"], [0.0, -1.0, -2.0])  # type: ignore[arg-type]


@pytest.mark.parametrize("head", [SLANT, INK], ids=["real", "map"])
def test_other_targets_are_refused(head: heads.AnyHead) -> None:
    with pytest.raises(ConfigError, match=rf"fit\.mixup: only for classes of whole images, and {head.name} is none"):
        check_mixup(FitSettings(mixup=0.2), [KIND, head])
    check_mixup(FitSettings(mixup=0.2), [KIND])
    check_mixup(FitSettings(), [KIND, head])
