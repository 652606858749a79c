"""Fits a model's novelty: distances to the training images, p-values to the validation images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from probrt.trainer import data
from probrt.trainer.data import Examples
from probrt.trainer.model import Model
from probrt.trainer.novelty.fit import MAX_CALIBRATION, MAX_TRAINING, check_count, fit_novelty, rank_images
from probrt.trainer.novelty.stages import StageRef, find_stages, pool_positions, stage_tensors
from probrt.trainer.variational.handlers import MeanHandler, use_handler

_BATCH = 64


def add_novelty(model: Model, training: Examples, validation: Examples, seed: int) -> Model:
    """Returns the model with its novelty.

    Of more than MAX_TRAINING or MAX_CALIBRATION images, a random part is used, which keeps the p-values valid.
    Raises NoNovelty where the images are too few or tell nothing.
    """
    check_count(len(training), "training")
    check_count(len(validation), "validation")
    network = model.without_auxiliary().network
    refs = find_stages(network, training.images[:1].astype(np.float32))
    fitting = compute_features(network, refs, _random_part(training, MAX_TRAINING, seed))
    ranking = compute_features(network, refs, _random_part(validation, MAX_CALIBRATION, seed))
    return dataclasses.replace(model, novelty=fit_novelty(refs, fitting, ranking, seed))


def renew_novelty(model: Model, examples: Examples, seed: int) -> Model:
    """Returns the model with p-values from other images; they need no labels.

    A model without novelty gets one: distances to a random half of the images, and p-values from the other half.
    Raises NoNovelty where the images are too few or tell nothing.
    """
    if model.novelty is None:
        rows = np.random.default_rng(seed).permutation(len(examples))
        middle = len(rows) // 2
        return add_novelty(model, _take_images(examples, rows[:middle]), _take_images(examples, rows[middle:]), seed)
    network = model.without_auxiliary().network
    ranking = compute_features(network, model.novelty.stages, _random_part(examples, MAX_CALIBRATION, seed))
    return dataclasses.replace(model, novelty=rank_images(model.novelty, ranking))


def compute_features(network: keras.Model, refs: Sequence[StageRef], examples: Examples) -> list[np.ndarray]:
    """Computes the pooled features of each stage at the posterior mean, one [images, features] per stage."""
    stages = keras.Model(network.input, stage_tensors(network, refs))

    @tf.function(reduce_retracing=True, autograph=False)
    def pool(images: tf.Tensor) -> list[tf.Tensor]:
        with use_handler(MeanHandler()):
            return [pool_positions(features) for features in tf.nest.flatten(stages(images, training=False))]

    batches = [pool(part["images"]) for part in data.evaluation_batches(examples, _BATCH)]
    return [np.concatenate([features.numpy() for features in stage]) for stage in zip(*batches, strict=True)]


def _random_part(examples: Examples, most: int, seed: int) -> Examples:
    """Returns at most so many images, without targets."""
    return _take_images(examples, np.sort(np.random.default_rng(seed).permutation(len(examples))[:most]))


def _take_images(examples: Examples, rows: np.ndarray) -> Examples:
    """Returns some images, without targets."""
    return Examples(tuple(examples.files[row] for row in rows), examples.images[rows], {})
