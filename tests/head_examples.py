"""Heads to test: at least one of every likelihood."""

from __future__ import annotations

import pytest
import tensorflow as tf
from cases import FEATURE_HEADS

from probrt.trainer import heads

XY = {"labels": ["x", "y"], "centre": [2.0, -1.0], "spread": [0.3, 4.0]}
HEADS: list[heads.Head] = [
    heads.Categorical(name="digit", labels=["a", "b", "c"]),
    heads.Categorical(name="tissue", labels=["a", "b"], per_position=True),
    heads.Ordinal(name="grade", labels=["low", "middle", "high", "top"]),
    heads.Ordinal(name="two_grades", labels=["low", "high"]),
    heads.Bernoulli(name="tags", labels=["x", "y"]),
    heads.Bernoulli(name="ink", per_position=True),
    heads.BernoulliMixture(name="soft_ink", per_position=True),
    heads.BernoulliMixture(name="soft_tags", labels=["x", "y"], components=2),
    heads.Normal(name="slant", centre=[2.0], spread=[0.3]),
    heads.Normal(name="place", **XY),
    heads.Normal(name="learned", scale="learned", **XY),
    heads.Normal(name="fixed", scale=0.7, **XY),
    heads.Normal(name="depth_map", per_position=True),
    heads.Laplace(name="robust", **XY),
    heads.StudentT(name="heavy", degrees=9.0, **XY),
    heads.LogNormal(name="size", labels=["x", "y"], centre=[0.1, -0.2], spread=[0.3, 0.2]),
    heads.Box(name="box", centre=[0.2, 0.2, 0.7, 0.7], spread=[0.1] * 4),
    heads.MultivariateNormal(name="mvn", **XY),
    heads.MultivariateNormal(name="mvn_diagonal", covariance="diagonal", **XY),
    heads.MultivariateNormal(name="mvn_low_rank", covariance="low_rank", rank=2, **XY),
    heads.NormalMixture(name="angle", **XY),
    heads.Poisson(name="count", centre=[3.0], spread=[2.0]),
    heads.NegativeBinomial(name="spots", centre=[3.0], spread=[2.0]),
    heads.Beta(name="share", centre=[0.2], spread=[0.5]),
]
# A head that is not listed above is tested as its case in cases.py has it.
HEADS += [head for head in FEATURE_HEADS if type(head) not in {type(example) for example in HEADS}]
assert {type(head) for head in HEADS} == set(heads.HEADS.built_in)
every_head = pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)


def channels(head: heads.Head, draw: int = 0, spread: float = 1.0) -> tf.Tensor:
    """Channels of six examples (5 by 4 positions for a head per position), as the network gives them."""
    positions = [5, 4] if head.per_position else []
    predicted = tf.random.stateless_normal([6, *positions, head.channels], [draw, 1], stddev=spread)
    learned = tf.broadcast_to(tf.constant(head.learned, tf.float32), [6, *positions, len(head.learned)])
    return tf.concat([predicted, learned], axis=-1)
