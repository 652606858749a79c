"""The noise of training steps: its streams are keyed by row, and apart from each other."""

import numpy as np
import pytest
import tensorflow as tf

from probrt.trainer.variational import philox
from probrt.trainer.variational.philox import RowStream


@pytest.mark.parametrize("draw", [philox.row_signs, philox.row_normals])
@pytest.mark.parametrize("channels", [1, 4, 7])
def test_a_row_is_the_same_wherever_its_batch_begins(draw, channels):
    whole = draw(RowStream(3, 9, 5, 0, 6), channels).numpy()
    assert whole.shape == (6, channels)
    traced = tf.function(lambda first, rows: draw(RowStream(tf.constant(3), 9, tf.constant(5), first, rows), channels))
    np.testing.assert_array_equal(traced(tf.constant(2), tf.constant(3)), whole[2:5])
    assert not np.array_equal(draw(RowStream(3, 9, 5, 6, 6), channels), whole) or channels == 1


def test_every_stream_is_its_own_and_has_the_right_law():
    names = [(1, 2, 3), (2, 1, 3), (1, 3, 2), (1, 2, 4), (2**31 - 1, 2**31 - 1, 2**31 - 1)]
    count = 40_000
    for source, sd in ((philox.normal, 1.0), (philox.uniform, 12**-0.5)):
        drawn = np.stack([source(*name, (count,)).numpy() for name in names])
        error = 5 / np.sqrt(count)
        assert np.abs(np.corrcoef(drawn) - np.eye(len(names))).max() < error
        assert np.abs(drawn.mean(1) - (0.5 if source is philox.uniform else 0.0)).max() < error * sd
        # The error of a standard deviation is sd / sqrt(2 count) for normals, less for uniforms.
        assert np.abs(drawn.std(1) / sd - 1).max() < error / np.sqrt(2)
    assert drawn.min() > 0
    assert drawn.max() < 1
    signs = philox.row_signs(RowStream(1, 2, 3, 0, count), 3).numpy()
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert np.abs(signs.T @ signs / count - np.eye(3)).max() < 5 / np.sqrt(count)
