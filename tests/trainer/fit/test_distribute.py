"""One process, two devices, two processes on loopback: the same global batches end in the same weights."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from probrt.runtime.errors import ConfigError

SCRIPT = """
import os, sys
import keras, numpy as np, tensorflow as tf
devices, target = int(sys.argv[1]), sys.argv[2]
if devices > 1:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
from probrt.runtime.bundle.manifest import Input
from probrt.trainer import heads
from probrt.trainer.backbones import ConvStack
from probrt.trainer.data import Examples
from probrt.trainer.fit.distribute import chosen_strategy, is_chief, synchronise
from probrt.trainer.fit.loop import Run, fit
from probrt.trainer.build import build_model
from probrt.trainer.layers.weight_settings import WeightSettings
from probrt.trainer.variational.priors.families import LearnedNormalPrior
from probrt.trainer.config.settings import Augmentation, FitSettings

strategy = chosen_strategy()
rng = np.random.default_rng(0)
images = rng.uniform(0, 255, (22, 8, 8, 1)).astype(np.float32)
digit = (images[:, :, :4].mean((1, 2, 3)) > images[:, :, 4:].mean((1, 2, 3))).astype(np.int32)
examples = Examples(tuple(map(str, range(22))), images, {"side": digit})
input = Input(shape=[8, 8, 1], colour="grey", resize="none", range=(0.0, 255.0))
with strategy.scope():
    keras.utils.set_random_seed(1)
    head = heads.Categorical(name="side", labels=["right", "left"])
    weights = WeightSettings(estimator="flipout", prior=LearnedNormalPrior())
    model = build_model("m", input, [head], ConvStack(widths=(3,), normalisation="batch"), weights)
    synchronise(model.network, strategy)
    settings = FitSettings(epochs=2, batch=8, learning_rate=1e-3, draws=2)  # the last batch of an epoch has 6
    run = Run(seed=5, augmentation=Augmentation(shift=1))
    elbos = [progress.elbo for progress in fit(model, examples, examples, settings, run)]
if is_chief(strategy):
    found = {variable.path.replace("/", "."): variable.numpy() for variable in model.network.variables}
    np.savez(target, replicas=strategy.num_replicas_in_sync, elbos=elbos, **found)
"""


def ran(target: Path, devices: int = 1, config: dict | None = None) -> subprocess.Popen[str]:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"} | ({"TF_CONFIG": json.dumps(config)} if config else {})
    command = [sys.executable, "-c", SCRIPT, str(devices), str(target)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def test_two_devices_and_two_workers_end_in_the_weights_of_one(tmp_path: Path) -> None:
    """Six steps of Adam with Flipout, two draws, batch statistics, augmentation and an uneven last batch.

    Sums in another order differ by 1e-7 relative; Adam divides a gradient by its own size, so where one is next to
    nothing a rounding shows as a part of a step: at most 1e-3 of the six steps of 1e-3. A bias before batch
    normalisation has no gradient but rounding, which Adam makes steps of: it drifts by up to six steps, the moving mean
    with it, and both cancel in what the layer gives.
    """
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    workers = [{"cluster": cluster, "task": {"type": "worker", "index": index}} for index in (0, 1)]
    processes = [
        ran(tmp_path / "one.npz"),
        ran(tmp_path / "two.npz", devices=2),
        ran(tmp_path / "workers.npz", config=workers[0]),
        ran(tmp_path / "nobody.npz", config=workers[1]),
    ]
    for process in processes:
        out, _ = process.communicate(timeout=400)
        assert process.returncode == 0, out[-3000:]
    one, two, both = (dict(np.load(tmp_path / f"{name}.npz")) for name in ("one", "two", "workers"))
    assert not (tmp_path / "nobody.npz").exists()
    assert [int(found.pop("replicas")) for found in (one, two, both)] == [1, 2, 2]
    assert len(one) > 10
    for other in (two, both):
        assert other.keys() == one.keys()
        for name, value in one.items():
            drifts = name.endswith(("_conv1.bias", "moving_mean"))
            np.testing.assert_allclose(other[name], value, rtol=1e-5, atol=6e-3 if drifts else 6e-6, err_msg=name)


def test_a_broken_tf_config_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from probrt.trainer.fit.distribute import chosen_strategy

    monkeypatch.setenv("TF_CONFIG", "{")
    with pytest.raises(ConfigError, match="TF_CONFIG is set but is no JSON object with a cluster"):
        chosen_strategy()
