"""Fitting on several devices or machines: the strategy, and the rows of a batch that each replica takes.

Every worker reads all data and makes the whole batch, which is cheap, and takes its own rows of it. So what happens to
a row does not depend on the number of replicas.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from probrt.runtime.errors import ConfigError
from probrt.trainer.keras_internals import flatten_layers


def choose_strategy() -> tf.distribute.Strategy:
    """Returns the strategy for several machines if TF_CONFIG lists them, for several GPUs (or logical CPUs) if this
    machine has them, and the default strategy otherwise.

    Call it before any other TensorFlow operation, because creating it connects the workers. Raises ConfigError if
    TF_CONFIG is malformed.
    """
    try:
        workers = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
    except (ValueError, AttributeError):
        raise ConfigError("TF_CONFIG is set but is no JSON object with a cluster; unset it or correct it") from None
    if sum(len(tasks) for tasks in workers.values()) > 1:
        return tf.distribute.MultiWorkerMirroredStrategy()
    for device_type in ("GPU", "CPU"):
        devices = tf.config.list_logical_devices(device_type)
        if len(devices) > 1:
            return tf.distribute.MirroredStrategy([device.name for device in devices])
        if devices:
            break
    return tf.distribute.get_strategy()


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes files."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    if "chief" in resolver.cluster_spec().as_dict():
        return bool(resolver.task_type == "chief")
    return bool(resolver.task_type == "worker" and resolver.task_id == 0)


def synchronise_batch_statistics(network: keras.Model, strategy: tf.distribute.Strategy) -> None:
    """Makes every batch normalisation compute its statistics over the rows of all replicas."""
    for layer in flatten_layers(network):
        if isinstance(layer, keras.layers.BatchNormalization) and strategy.num_replicas_in_sync > 1:
            layer.synchronized = True


def split_batch(strategy: tf.distribute.Strategy, batch: dict[str, Any]) -> dict[str, Any]:
    """Returns a batch as the replicas receive it: each has its own rows.

    Adds `first_row`, the position of the replica's first row in the whole batch, and `count`, the rows of the whole
    batch.
    """
    rows = int(batch["images"].shape[0])
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return {**batch, "first_row": tf.constant(0), "count": tf.constant(float(rows))}
    bounds = np.rint(np.linspace(0, rows, replicas + 1)).astype(np.int32)

    def per_replica(value_of: Callable[[int], tf.Tensor]) -> object:
        return strategy.experimental_distribute_values_from_function(
            lambda context: value_of(context.replica_id_in_sync_group)
        )

    def split_rows(values: tf.Tensor) -> object:
        return per_replica(lambda replica: values[bounds[replica] : bounds[replica + 1]])

    return {
        **tf.nest.map_structure(split_rows, batch),
        "first_row": per_replica(lambda replica: tf.constant(bounds[replica])),
        "count": per_replica(lambda replica: tf.constant(float(rows))),
    }
