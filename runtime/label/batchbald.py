"""BatchBALD: the images whose labels, taken together, would tell most about the weights.

Kirsch, van Amersfoort and Gal, "BatchBALD: Efficient and Diverse Batch Acquisition for Deep Bayesian Active Learning",
NeurIPS 2019. A batch is worth the mutual information of its labels and the weights. Two images that teach the same are
worth little more than one of them, which the sum of their own informations (BALD) does not see.

All draws are used for every image alike: draw k is one value of all weights, so the labels of two images are
independent given the draw.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Joint labels that are enumerated; of more than that, so many are sampled.
MOST_JOINT_LABELS = 4096
# The labels of a batch cannot tell more than which of K draws is the true one, log K. Past this share of that, the rest
# of the batch would be chosen by rounding errors: a new group begins, which knows nothing of the last.
_SATURATED = 0.8


@dataclass(frozen=True)
class Choice:
    """An image that was chosen. information: what its label adds to those chosen before in its group, in nats."""

    index: int
    information: float
    group: int


def information(probabilities: Floats) -> Floats:
    """Returns the mutual information of each image's label and the weights (BALD), in nats, [images].

    probabilities: [images, draws, classes].
    """
    informations: Floats = entropy(probabilities.mean(1)) - entropy(probabilities).mean(-1)
    return informations


def entropy(probabilities: Floats) -> Floats:
    """Returns the entropy over the last axis, in nats."""
    logs = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    entropies: Floats = -(probabilities * logs).sum(-1)
    return entropies


class JointLabels:
    """The joint distribution of the labels of some images, exact or by samples of it.

    under_draws: [joint labels, draws], the probability of each under each draw.
    weights: what a joint label stands for: 1 where all are enumerated, else 1 / (samples · its probability).
    """

    def __init__(self, draws: int, rng: np.random.Generator, most: int = MOST_JOINT_LABELS) -> None:
        self.under_draws: Floats = np.ones((1, draws))
        self.weights: Floats = np.ones(1)
        self._rng = rng
        self._most = most

    def joint(self, probabilities: Floats) -> Floats:
        """Returns the probability of each joint label with each label of one more image, [joint labels, classes].

        probabilities: of that image, [draws, classes].
        """
        joint: Floats = self.under_draws @ probabilities / len(probabilities)
        return joint

    def gain(self, probabilities: Floats) -> float:
        """Returns what the label of one more image would add to the information, in nats."""
        before = -(self.weights * _times_log(self.under_draws.mean(1))).sum()
        after = -(self.weights[:, None] * _times_log(self.joint(probabilities))).sum()
        return float(after - before - entropy(probabilities).mean())

    def add(self, probabilities: Floats) -> None:
        """Adds the label of one more image."""
        joint = self.joint(probabilities)
        labels, classes = joint.shape
        if labels * classes <= self._most:
            rows, columns = np.divmod(np.arange(labels * classes), classes)
            self.weights = self.weights[rows]
        else:
            shares = (self.weights[:, None] * joint).ravel()
            picked = self._rng.choice(labels * classes, self._most, p=shares / shares.sum())
            rows, columns = np.divmod(picked, classes)
            self.weights = 1 / (self._most * joint[rows, columns])
        self.under_draws = self.under_draws[rows] * probabilities.T[columns]


def choose_batch(probabilities: npt.ArrayLike, take: int, seed: int = 0) -> list[Choice]:
    """Returns up to `take` images, each the one that adds most to those before it.

    probabilities: of each image's classes under each draw, [images, draws, classes].
    What an image adds never grows as others are chosen, so its last value is a bound: only images whose bound is the
    largest are computed anew (lazy greedy, Minoux 1978).
    """
    values = np.asarray(probabilities, np.float64)
    draws = values.shape[1]
    rng = np.random.default_rng(seed)
    alone = information(values)
    left = set(range(len(values)))
    choices: list[Choice] = []
    group = 0
    while left and len(choices) < take:
        labels = JointLabels(draws, rng)
        bounds = [(-alone[index], -1, index) for index in left]  # least first; -1: of no step
        heapq.heapify(bounds)
        told, step = 0.0, 0
        while bounds and len(choices) < take:
            bound, computed_at, index = heapq.heappop(bounds)
            if computed_at != step:
                heapq.heappush(bounds, (-labels.gain(values[index]), step, index))
                continue
            choices.append(Choice(index, max(0.0, -bound), group))
            left.remove(index)
            labels.add(values[index])
            told, step = told - bound, step + 1
            if told > _SATURATED * math.log(draws):
                break
        group += 1
    return choices


def _times_log(probabilities: Floats) -> Floats:
    """Returns p · log p, 0 at 0."""
    product: Floats = probabilities * np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    return product
