"""More than one device or machine: which strategy, and who gets which rows of a batch.

Every worker reads the whole data and makes the whole batch, which is cheap, and takes its own rows of it. So what a
row becomes does not depend on how many share the work.
"""

from __future__ import annotations

import json
import os

import keras
import numpy as np
import tensorflow as tf

from probrt.runtime.errors import ConfigError
from probrt.trainer.keras_internals import flatten_layers


def chosen_strategy() -> tf.distribute.Strategy:
    """Several machines if TF_CONFIG names them, else all GPUs (or logical CPUs) if there are several, else none.

    Call it before any other TensorFlow operation: workers find each other when it is made.
    """
    try:
        workers = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
    except (ValueError, AttributeError):
        raise ConfigError("TF_CONFIG is set but is no JSON object with a cluster; unset it or correct it") from None
    if sum(len(tasks) for tasks in workers.values()) > 1:
        return tf.distribute.MultiWorkerMirroredStrategy()
    for kind in ("GPU", "CPU"):
        devices = tf.config.list_logical_devices(kind)
        if len(devices) > 1:
            return tf.distribute.MirroredStrategy([device.name for device in devices])
        if devices:
            break
    return tf.distribute.get_strategy()


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    if "chief" in resolver.cluster_spec().as_dict():
        return resolver.task_type == "chief"
    return resolver.task_type == "worker" and resolver.task_id == 0


def synchronise(network: keras.Model, strategy: tf.distribute.Strategy) -> None:
    """Makes batch normalisation take its statistics over all replicas' rows, whatever the layers came with."""
    for layer in flatten_layers(network):
        if isinstance(layer, keras.layers.BatchNormalization) and strategy.num_replicas_in_sync > 1:
            layer.synchronized = True


def shared(strategy: tf.distribute.Strategy, one: dict) -> dict:
    """A batch as the replicas get it: each its rows, with `first_row`, their place in it, and `count`, its size."""
    rows = int(one["images"].shape[0])
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return {**one, "first_row": tf.constant(0), "count": tf.constant(float(rows))}
    bounds = np.rint(np.linspace(0, rows, replicas + 1)).astype(np.int32)

    def distributed(of_replica) -> object:
        return strategy.experimental_distribute_values_from_function(
            lambda context: of_replica(context.replica_id_in_sync_group)
        )

    def own(value: tf.Tensor) -> object:
        return distributed(lambda replica: value[bounds[replica] : bounds[replica + 1]])

    return {
        **tf.nest.map_structure(own, one),
        "first_row": distributed(lambda replica: tf.constant(bounds[replica])),
        "count": distributed(lambda replica: tf.constant(float(rows))),
    }
