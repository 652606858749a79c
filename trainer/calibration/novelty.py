"""Fits a model's novelty: distances to the training images, p-values to the validation images."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from probrt.trainer import data
from probrt.trainer.data import Examples
from probrt.trainer.model import Model
from probrt.trainer.novelty.fit import MAX_CALIBRATION, MAX_TRAINING, NoNovelty, check_count, fit_novelty, rank_images
from probrt.trainer.novelty.pool import pool_stages
from probrt.trainer.novelty.positions import MAX_IMAGES, MAX_POSITIONS, fit_positions, rank_positions
from probrt.trainer.novelty.score import PositionNovelty
from probrt.trainer.novelty.stages import (
    StageRef,
    find_pooled_stages,
    find_position_stages,
    find_stages,
    stage_tensors,
)
from probrt.trainer.variational.handlers import MeanHandler, use_handler

_BATCH = 64


def add_novelty(model: Model, training: Examples, validation: Examples, seed: int) -> Model:
    """Returns the model with its novelty; also that of positions if it has two-dimensional heads per position.

    Of more than MAX_TRAINING or MAX_CALIBRATION images, a random part is used, which keeps the p-values valid.
    Raises NoNovelty where the images are too few or tell nothing.
    """
    check_count(len(training), "training")
    check_count(len(validation), "validation")
    model_as_exported = model.without_auxiliary()
    network = model_as_exported.network
    refs = find_pooled_stages(network, training.images[:1].astype(np.float32))
    fitting = compute_features(network, refs, _random_part(training, MAX_TRAINING, seed))
    ranking = compute_features(network, refs, _random_part(validation, MAX_CALIBRATION, seed))
    novelty = fit_novelty(refs, fitting, ranking, seed)
    positions = _fit_positions(model_as_exported, training, validation, seed)
    return dataclasses.replace(model, novelty=dataclasses.replace(novelty, map=positions))


def try_novelty(model: Model, training: Examples, validation: Examples, seed: int) -> tuple[Model, str]:
    """Returns the model with its novelty, or as it was; and what novelty compares, or why there is none."""
    try:
        model = add_novelty(model, training, validation, seed)
    except NoNovelty as error:
        return model, f"none: {error}"
    return model, describe_novelty(model)


def describe_novelty(model: Model) -> str:
    """Returns what the model's novelty compares; empty without novelty."""
    return model.novelty.summary if model.novelty else ""


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
    novelty = rank_images(model.novelty, ranking)
    if novelty.map is not None:
        with contextlib.suppress(NoNovelty):  # positions that are all alike set no scale: the earlier one stays
            places = sample_positions(network, novelty.map.stages, examples, seed)
            novelty = dataclasses.replace(novelty, map=rank_positions(novelty.map, places))
    return dataclasses.replace(model, novelty=novelty)


def compute_features(network: keras.Model, refs: Sequence[StageRef], examples: Examples) -> list[np.ndarray]:
    """Computes the pooled features at the posterior mean, one [images, features] per set that the refs give."""
    stages = keras.Model(network.input, stage_tensors(network, refs))

    @tf.function(reduce_retracing=True, autograph=False)
    def pool(images: tf.Tensor) -> list[tf.Tensor]:
        with use_handler(MeanHandler()):
            return pool_stages(tf.nest.flatten(stages(images, training=False)), refs)

    batches = [pool(part["images"]) for part in data.evaluation_batches(examples, _BATCH)]
    return [np.concatenate([features.numpy() for features in pooled]) for pooled in zip(*batches, strict=True)]


def _fit_positions(model: Model, training: Examples, validation: Examples, seed: int) -> PositionNovelty | None:
    """Returns the novelty of positions; None if no head tells of positions in two dimensions, or they tell nothing."""
    heads = [head.name for head in model.heads if len(model.positions(head)) == 2]
    if not heads:
        return None
    image = training.images[:1].astype(np.float32)
    stages = find_position_stages(model.network, heads, find_stages(model.network, image), image)
    if not stages:
        return None
    fitting, ranking = (sample_positions(model.network, stages, part, seed) for part in (training, validation))
    try:
        return fit_positions(stages, fitting, ranking, seed)
    except NoNovelty:
        return None


def sample_positions(network: keras.Model, refs: Sequence[StageRef], examples: Examples, seed: int) -> list[np.ndarray]:
    """Computes the features of random positions at the posterior mean, one [positions, channels] per stage.

    The positions are the same in every stage: at most MAX_POSITIONS, as many of each of at most MAX_IMAGES images.
    """
    stages = keras.Model(network.input, stage_tensors(network, refs))

    @tf.function(reduce_retracing=True, autograph=False)
    def sample(images: tf.Tensor, places: tf.Tensor) -> list[tf.Tensor]:
        with use_handler(MeanHandler()):
            return [_take(features, places) for features in tf.nest.flatten(stages(images, training=False))]

    part = _random_part(examples, MAX_IMAGES, seed)
    rng = np.random.default_rng(seed)
    per_image = max(1, MAX_POSITIONS // len(part))
    batches = []
    for batch in data.evaluation_batches(part, _BATCH):
        places = rng.random((len(batch["images"]), per_image), np.float32)
        batches.append(sample(batch["images"], tf.constant(places)))
    return [np.concatenate([features.numpy() for features in stage]) for stage in zip(*batches, strict=True)]


def _take(features: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    """Returns the features [batch, height, width, channels] at places [batch, n] from 0 to 1, [batch · n, channels]."""
    channels = features.shape[-1]
    positions = tf.reshape(tf.cast(features, tf.float32), [tf.shape(features)[0], -1, channels])
    count = tf.shape(positions)[1]
    index = tf.minimum(tf.cast(places * tf.cast(count, tf.float32), tf.int32), count - 1)
    return tf.reshape(tf.gather(positions, index, batch_dims=1), [-1, channels])


def _random_part(examples: Examples, most: int, seed: int) -> Examples:
    """Returns at most so many images, without targets."""
    return _take_images(examples, np.sort(np.random.default_rng(seed).permutation(len(examples))[:most]))


def _take_images(examples: Examples, rows: np.ndarray) -> Examples:
    """Returns some images, without targets."""
    return Examples(tuple(examples.files[row] for row in rows), examples.images[rows], {})
