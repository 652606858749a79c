"""The same global batches give the same weights on one device, two devices, and two processes on loopback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from probrt.runtime.errors import ConfigError

SCRIPT = """
import os, sys
import keras, numpy as np, tensorflow as tf
devices, target, mixup = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
if devices > 1:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
from probrt.runtime.bundle.manifest import Input
from probrt.trainer import heads
from probrt.trainer.backbones import ConvStack
from probrt.trainer.data import Examples
from probrt.trainer.fit.distribute import choose_strategy, is_chief, synchronise_batch_statistics
from probrt.trainer.fit.loop import FitRun, fit_model
from probrt.trainer.build import build_model
from probrt.trainer.layers.weight_settings import WeightSettings
from probrt.trainer.variational.priors.families import LearnedNormalPrior
from probrt.trainer.config.settings import Augmentation, FitSettings

strategy = choose_strategy()
rng = np.random.default_rng(0)
images = rng.uniform(0, 255, (22, 8, 8, 1)).astype(np.float32)
digit = (images[:, :, :4].mean((1, 2, 3)) > images[:, :, 4:].mean((1, 2, 3))).astype(np.int32)
examples = Examples(tuple(map(str, range(22))), images, {"side": digit})
input = Input(shape=[8, 8, 1], colour="grey", resize="none", range=(0.0, 255.0))
with strategy.scope():
    keras.utils.set_random_seed(1)
    head = heads.Categorical(name="side", labels=["right", "left"])
    weights = WeightSettings(estimator="flipout", prior=LearnedNormalPrior())
    model = build_model(
        "m", input, [head], weights=weights,
        backbone=ConvStack(widths=(3,), depth=1, normalisation="none" if mixup else "batch"),
    )
    synchronise_batch_statistics(model.network, strategy)
    # The last batch has 6.
    settings = FitSettings(epochs=2, batch=8, learning_rate=1e-3, draws=2, kl_weight=1.0, mixup=mixup)
    run = FitRun(seed=5, augmentation=Augmentation(shift=1))
    elbos = [report.elbo for report in fit_model(model, examples, examples, settings=settings, run=run)]
if is_chief(strategy):
    weights = {variable.path.replace("/", "."): variable.numpy() for variable in model.network.variables}
    np.savez(target, replicas=strategy.num_replicas_in_sync, elbos=elbos, **weights)
"""


def start_fit(target: Path, devices: int = 1, config: dict | None = None, mixup: float = 0.0) -> subprocess.Popen[str]:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"} | ({"TF_CONFIG": json.dumps(config)} if config else {})
    command = [sys.executable, "-c", SCRIPT, str(devices), str(target), str(mixup)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for port in sockets:
        port.bind(("127.0.0.1", 0))
    ports = [port.getsockname()[1] for port in sockets]
    for port in sockets:
        port.close()
    return ports


def test_two_devices_and_two_workers_give_the_weights_of_one_device(tmp_path: Path) -> None:
    """Six steps of Adam with Flipout, two draws, batch statistics, augmentation and an uneven last batch.

    Sums in another order differ by 1e-7 relative. Adam divides a gradient by its own size, so the rounding of a tiny
    gradient becomes a fraction of a step: at most 1e-3 of the six steps of 1e-3. The gradient of a bias before batch
    normalisation is rounding alone, and Adam makes whole steps of it: the bias drifts by up to six steps, the moving
    mean with it, and both cancel in the layer's outputs.
    """
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    workers = [{"cluster": cluster, "task": {"type": "worker", "index": index}} for index in (0, 1)]
    processes = [
        start_fit(tmp_path / "one.npz"),
        start_fit(tmp_path / "two.npz", devices=2),
        start_fit(tmp_path / "workers.npz", config=workers[0]),
        start_fit(tmp_path / "second_worker.npz", config=workers[1]),
    ]
    for process in processes:
        out, _ = process.communicate(timeout=400)
        assert process.returncode == 0, out[-3000:]
    one_device, two_devices, two_workers = (
        dict(np.load(tmp_path / f"{name}.npz")) for name in ("one", "two", "workers")
    )
    assert not (tmp_path / "second_worker.npz").exists()
    assert [int(run.pop("replicas")) for run in (one_device, two_devices, two_workers)] == [1, 2, 2]
    assert len(one_device) > 10
    for run in (two_devices, two_workers):
        assert run.keys() == one_device.keys()
        for name, expected in one_device.items():
            drifts = name.endswith(("_conv1.bias", "moving_mean"))
            np.testing.assert_allclose(run[name], expected, rtol=1e-5, atol=6e-3 if drifts else 6e-6, err_msg=name)


@pytest.mark.stress
def test_two_devices_mix_the_images_of_one_device(tmp_path: Path, measured: Callable[[str, str], None]) -> None:
    """A partner may be on the other device. Without batch normalisation no bias drifts, so the weights agree."""
    for devices in (1, 2):
        process = start_fit(tmp_path / f"{devices}.npz", devices=devices, mixup=0.2)
        out, _ = process.communicate(timeout=400)
        assert process.returncode == 0, out[-3000:]
    one, two = (dict(np.load(tmp_path / f"{devices}.npz")) for devices in (1, 2))
    assert (int(one.pop("replicas")), int(two.pop("replicas"))) == (1, 2)
    assert one.keys() == two.keys()
    difference = max(float(np.abs(one[name] - two[name]).max()) for name in one)
    assert difference < 6e-6
    measured("mixup on one device and on two", f"largest difference of a weight {difference:.1e}")


def test_a_broken_tf_config_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from probrt.trainer.fit.distribute import choose_strategy

    monkeypatch.setenv("TF_CONFIG", "{")
    with pytest.raises(ConfigError, match="TF_CONFIG is set but is no JSON object with a cluster"):
        choose_strategy()
