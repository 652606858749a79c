"""The generator's known answers, and one pass for several weights."""

import numpy as np
import pytest
import tensorflow as tf

from probrt.trainer.variational import threefry as noise


@pytest.mark.parametrize(
    ("key", "counter", "words"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_known_answers(key, counter, words):
    """Those that Salmon et al. publish with Random123 (kat_vectors, threefry2x32, 20 rounds)."""
    generated = noise.threefry(*(tuple(tf.constant(word, tf.uint32) for word in pair) for pair in (key, counter)))
    assert tuple(int(word) for word in generated) == words


@pytest.mark.parametrize("source", [noise.normal, noise.uniform])
@pytest.mark.parametrize("index", [3, [3, 9]])
def test_a_weights_noise_does_not_depend_on_what_is_made_with_it(source, index, monkeypatch):
    """Also where the weights take several passes, the largest one a pass of its own."""
    monkeypatch.setattr(noise, "_PASS", 30)
    shapes = {7: (3, 5), 2**31 - 1: (), 5: (101,), 8: (1,), 9: (4, 2)}
    together = source(11, shapes, tf.constant(index))
    assert list(together) == list(shapes)
    for weight, shape in shapes.items():
        alone = source(11, {weight: shape}, tf.constant(index))[weight].numpy()
        assert alone.shape == (*np.shape(index), *shape)
        np.testing.assert_array_equal(together[weight].numpy(), alone)
