"""Photometric augmentation: which images it changes, how far, and by which key."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import ConfigError
from probrt.trainer import heads
from probrt.trainer.config.settings import Augmentation, DataSettings
from probrt.trainer.data.augment import augment, check_augmentation
from probrt.trainer.data.photometric import change_photometry, photometric_share

GREY = Input(shape=[12, 10, 1], colour="grey", resize="none", range=(0, 255))
KIND = heads.Categorical(name="kind", labels=["a", "b"])
RIPE = heads.Bernoulli(name="ripe")
SLANT = heads.Normal(name="slant")
INK = heads.Bernoulli(name="ink", per_position=True)


def make_images(count: int, channels: int = 1, high: float = 255.0) -> np.ndarray:
    """Pictures with a bright box on a dark ground, so that every change shows."""
    images = np.full((count, 12, 10, channels), 0.1 * high, np.float32)
    images[:, 3:9, 3:7] = 0.8 * high
    return images


def change(images: np.ndarray, share: float, limits: tuple[float, float], key: tuple[int, int]) -> np.ndarray:
    changed: np.ndarray = change_photometry(tf.constant(images), share, limits, tf.constant(key)).numpy()
    return changed


@pytest.mark.parametrize("limits", [(0.0, 255.0), (-1000.0, 400.0)])
def test_changed_values_stay_in_the_range_and_the_others_stay_as_they_are(limits: tuple[float, float]) -> None:
    low, high = limits
    images = low + make_images(2000, 3, 1.0) * (high - low)
    changed = change(images, 0.5, limits, (1, 2))
    assert changed.dtype == np.float32
    assert low <= changed.min() < changed.max() <= high
    # Of a chosen half, one in sixteen gets none of the four changes: 15/32, four standard errors of 2,000.
    share = np.mean([not np.array_equal(*pair) for pair in zip(images, changed, strict=True)])
    assert share == pytest.approx(15 / 32, abs=4 * np.sqrt(0.25 / 2000))
    np.testing.assert_array_equal(change(images[:8], 0.0, limits, (1, 2)), images[:8])


def test_the_same_key_gives_the_same_bits_and_another_step_others() -> None:
    images = make_images(64)
    first = change(images, 1.0, (0, 255), (1, 2))
    np.testing.assert_array_equal(first, change(images, 1.0, (0, 255), (1, 2)))
    assert (first != change(images, 1.0, (0, 255), (1, 3))).mean() > 0.5
    assert len({image.tobytes() for image in first}) > 50


def test_grey_pictures_of_three_channels_keep_their_hue_but_for_pixel_noise() -> None:
    """Blur, contrast and texture act on all channels alike: a median image has equal channels at most pixels."""
    changed = change(make_images(400, 3), 1.0, (0, 255), (1, 2))
    alike = (np.ptp(changed, axis=-1) < 1e-3).reshape(400, -1).mean(1)
    assert np.mean(alike > 0.99) == pytest.approx(0.5, abs=0.1)


def test_targets_do_not_change() -> None:
    images, rng = make_images(32), np.random.default_rng(0)
    targets = {
        "kind": tf.constant(rng.integers(0, 2, 32).astype(np.int32)),
        "slant": tf.constant(rng.normal(size=(32, 1)).astype(np.float32)),
        "ink": tf.constant((images > 100).astype(np.float32)),
        "where": tf.constant(np.tile(np.array([[0.3, 0.25, 0.7, 0.75]], np.float32), (32, 1))),
    }
    changed, unchanged = augment(
        tf.constant(images),
        targets,
        Augmentation(photometric=1.0),
        heads=[KIND, SLANT, INK, heads.Box(name="where")],
        input=GREY,
        key=tf.constant([1, 2]),
    )
    assert not np.array_equal(changed, images)
    for name, values in targets.items():
        np.testing.assert_array_equal(unchanged[name], values)


@pytest.mark.parametrize(
    ("chosen", "input", "share"),
    [
        ([KIND], GREY, 0.25),
        ([KIND, RIPE], GREY, 0.25),
        ([KIND, SLANT], GREY, 0.0),
        ([KIND, INK], GREY, 0.0),
        ([KIND], Input(shape=[12, 10, 1], colour="grey", resize="none"), 0.0),
        ([KIND], Input(shape=[30, 2], colour="none", resize="none", range=(0, 1)), 0.0),
        ([KIND], Input(shape=[4, 4, 4, 1], colour="none", resize="none", range=(0, 1)), 0.0),
    ],
)
def test_by_default_a_quarter_of_the_pictures_change_where_every_head_tells_classes_of_whole_pictures(
    chosen: list[heads.AnyHead], input: Input, share: float
) -> None:
    assert photometric_share(DataSettings(folder="."), chosen, input) == share
    assert photometric_share(DataSettings(folder=".", photometric=0.75), chosen, input) == 0.75
    assert photometric_share(Augmentation(), chosen, input) == 0.0
    check_augmentation(DataSettings(folder="."), input)


def test_a_share_is_refused_where_it_cannot_be_had() -> None:
    signal = Input(shape=[30, 2], colour="none", resize="none", range=(0, 1))
    with pytest.raises(ConfigError, match=r"data\.photometric: only for two-dimensional images"):
        check_augmentation(Augmentation(photometric=0.5), signal)
    with pytest.raises(ConfigError, match=r"data\.photometric: is a part of input\.range"):
        check_augmentation(Augmentation(photometric=0.5), Input(shape=[12, 10, 1], colour="grey", resize="none"))
