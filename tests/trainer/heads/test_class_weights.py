"""Weights of classes in the loss: counted from the training targets, applied per example or position."""

import msgspec
import numpy as np
import pytest
import tensorflow as tf

from probrt.runtime.errors import ConfigError
from probrt.trainer import heads
from probrt.trainer.config.config import load_config

LABELS = ["a", "b", "c"]


@pytest.mark.parametrize("kind", [heads.Categorical, heads.Ordinal])
def test_balanced_classes_weigh_as_much_in_the_loss(kind: type) -> None:
    head = kind(name="kind", labels=LABELS, class_weights="balanced")
    targets = np.array([0] * 6 + [1] * 3 + [2] + [-1] * 2, np.int32)
    with pytest.raises(ValueError, match="before `standardise`"):
        head.fit_log_prob(tf.zeros([1, head.channels + len(head.learned)]), tf.constant([0]))
    head = head.standardise(targets)
    assert head.class_weights == pytest.approx([10 / 18, 10 / 9, 10 / 3])
    rng = np.random.default_rng(0)
    channels = tf.constant(rng.normal(size=(12, head.channels + len(head.learned))), tf.float32)
    plain, weighted = (function(channels, tf.constant(targets)) for function in (head.log_prob, head.fit_log_prob))
    weights = np.array([*head.class_weights, 0.0])[targets]
    np.testing.assert_allclose(weighted, weights * plain.numpy(), rtol=1e-6)
    by_class = [weights[targets == label].sum() for label in range(3)]
    assert by_class == pytest.approx([10 / 3] * 3)
    assert msgspec.json.decode(msgspec.json.encode(head), type=kind) == head


def test_positions_have_weights_and_absent_classes_none() -> None:
    head = heads.Categorical(name="tissue", labels=LABELS, per_position=True, class_weights="balanced")
    targets = np.array([[[0, 0], [0, 1]], [[-1, 0], [0, 0]]], np.int32)
    head = head.standardise(targets)
    assert head.class_weights == pytest.approx([7 / 12, 7 / 2, 1.0])
    channels = tf.random.stateless_normal([2, 2, 2, 3], [1, 2])
    per_position = head.log_prob_per_position(channels, tf.constant(targets)).numpy()
    expected = (np.array([*head.class_weights, 0.0])[targets] * per_position).sum(axis=(1, 2))
    np.testing.assert_allclose(head.fit_log_prob(channels, tf.constant(targets)), expected, rtol=1e-6)


def test_without_weights_the_loss_is_the_likelihood() -> None:
    head = heads.Categorical(name="kind", labels=LABELS)
    channels, targets = tf.random.stateless_normal([4, 3], [1, 2]), tf.constant([0, 1, 2, -1])
    np.testing.assert_array_equal(head.fit_log_prob(channels, targets), head.log_prob(channels, targets))
    assert head.standardise(np.array([0, 1])) is head


def test_wrong_weights_are_refused(tmp_path) -> None:
    for words, reason in (("[1, 2]", "2 for 3 labels"), ('"even"', "balanced"), ("[1, 2, 0]", "class_weights")):
        (tmp_path / "config.toml").write_text(
            'name = "x"\ndata = { folder = "." }\n'
            'input = { shape = [8, 8, 1], colour = "grey", resize = "bilinear", range = [0, 255] }\n'
            'backbone = { name = "conv" }\n'
            '[[heads]]\nname = "kind"\nlikelihood = "categorical"\nlabels = ["a", "b", "c"]\n'
            f"class_weights = {words}\n"
        )
        with pytest.raises(ConfigError, match=reason):
            load_config(tmp_path / "config.toml")
