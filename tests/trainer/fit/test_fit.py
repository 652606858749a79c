"""A fit that is killed or stopped continues bit for bit; one that diverges reports where; patience takes the best."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from cases import BY_NAME
from PIL import Image

from probrt.runtime.errors import Fault
from probrt.trainer.config.settings import FitSettings
from probrt.trainer.data import Examples
from probrt.trainer.fit.loop import FitRun, fit_model
from probrt.trainer.fit.objective import resolve_epochs
from probrt.trainer.model import Model

CONFIG = """
name = "bars"
seed = 3
[data]
folder = "data"
shift = 1
flip = ["horizontal"]
[input]
shape = [8, 8, 1]
colour = "grey"
resize = "none"
range = [0, 255]
[backbone]
name = "conv"
widths = [4]
normalisation = "batch"
[weights]
prior = { name = "learned_normal" }
[[heads]]
name = "kind"
likelihood = "categorical"
labels = ["a", "b"]
[[heads]]
name = "bright"
likelihood = "normal"
[fit]
epochs = 12
batch = 8
average = 0.3
kl_weight = 1
checkpoint = 3
"""
STEPS = 12 * 5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 training pictures of random bars, so that each epoch has 5 steps."""
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    rows = ["file_name,split,kind,bright"]
    for index in range(56):
        values = np.zeros((8, 8), np.uint8)
        bright = rng.integers(100, 250)
        values[:, index % 8] = bright
        Image.fromarray(values if index % 2 else values.T).save(tmp_path / "data" / f"{index}.png")
        split = "train" if index < 40 else "validation"
        rows.append(f"{index}.png,{split},{'ab'[index % 2]},{bright / 100}")
    (tmp_path / "data" / "metadata.csv").write_text("\n".join(rows))
    (tmp_path / "config.toml").write_text(CONFIG)
    return tmp_path


def start_training(folder: Path, *words: str, **settings: object) -> subprocess.Popen[str]:
    program = Path(sys.executable).parent / "probrt"
    command = [program, "train", "config.toml", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, **pipes, **settings)


def run_training(folder: Path, *words: str, **settings: object) -> tuple[int, str, str]:
    process = start_training(folder, *words, **settings)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def wait_for_checkpoint(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 200
    while not any(int(path.stem) >= step for path in folder.glob("checkpoints/*.npz")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.005)


def read_weights(folder: Path) -> dict[str, bytes]:
    """Every array of a model's weights, as bytes."""
    arrays: dict[str, bytes] = {}

    def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            arrays[name] = item[()].tobytes()

    with h5py.File(folder / "weights.weights.h5") as file:
        file.visititems(collect)
    return arrays


def test_a_killed_and_resumed_fit_gives_the_weights_of_an_uninterrupted_fit(
    folder: Path, called: Callable[..., Any]
) -> None:
    """After kill -9, with the newest checkpoint cut in half, and after SIGTERM, the weights are the same bits."""
    whole = start_training(folder, "--out", "whole")
    process = start_training(folder, "--out", "model")
    wait_for_checkpoint(folder / "model", 6, process)
    process.kill()
    process.communicate()
    assert not (folder / "model" / "model.json").exists()
    newest, before = sorted((folder / "model" / "checkpoints").glob("*.npz"), reverse=True)
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    refused = called("train", "config.toml", "--out", "model", cwd=folder)
    assert (refused.code, "--resume" in refused.err) == (2, True)
    process = start_training(folder, "--out", "model", "--resume")
    wait_for_checkpoint(folder / "model", int(before.stem) + 12, process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=200)
    assert (process.returncode, err) == (143, "probrt: terminated\n")
    assert f"{Path('model', 'checkpoints', newest.name)}: damaged" in " ".join(out.split())
    stopped_at = max(int(path.stem) for path in folder.glob("model/checkpoints/*.npz"))
    assert stopped_at < STEPS
    assert f"stopped at step {stopped_at} of {STEPS}; go on with --resume" in out
    code, out, err = run_training(folder, "--out", "model", "--resume")
    assert code == 0, err
    assert f"epoch {(stopped_at // 5) + 1:3d}/12" in out
    assert f"epoch {(stopped_at // 5) - 1:3d}/12" not in out
    assert not (folder / "model" / "checkpoints").exists()
    whole.communicate(timeout=200)
    assert whole.returncode == 0
    assert read_weights(folder / "whole") == read_weights(folder / "model")
    assert len(read_weights(folder / "model")) > 10
    again = called("train", "config.toml", "--out", "model", "--resume", cwd=folder)
    assert (again.code, "is finished already" in again.out) == (0, True)
    card = (folder / "model" / "card.md").read_text()
    for text in ("# bars", "digest `", "| kind | accuracy |", "there is no test split", "bright below 1"):
        assert text in card
    assert "Tempered" not in card
    assert any((folder / "model" / "logs").iterdir())


# Batches of 12, 12, 12 and 4 pictures, and a checkpoint after every step, so that kills fall into writes.
MANY_STEPS = CONFIG.replace("epochs = 12\nbatch = 8", "epochs = 100\nbatch = 12").replace(
    "checkpoint = 3", "checkpoint = 1"
)


@pytest.mark.stress
def test_30_kills_and_cut_checkpoints_change_no_bit(folder: Path, measured: Callable[[str, str], None]) -> None:
    (folder / "config.toml").write_text(MANY_STEPS)
    whole = start_training(folder, "--out", "whole")
    rng = random.Random(0)
    step = cut = 0
    for kill in range(30):
        process = start_training(folder, "--out", "model", *(["--resume"] if kill else []))
        wait_for_checkpoint(folder / "model", step + 1, process)
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        process.communicate()
        paths = sorted((folder / "model" / "checkpoints").glob("*.npz"), reverse=True)
        if kill % 5 == 4:
            paths[0].write_bytes(paths[0].read_bytes()[: rng.randrange(paths[0].stat().st_size)])
            cut += 1
        step = int(paths[0].stem)
    code, _, err = run_training(folder, "--out", "model", "--resume")
    assert code == 0, err
    whole.communicate(timeout=200)
    assert step < 100 * 4
    weights = read_weights(folder / "model")
    differing = [name for name, content in read_weights(folder / "whole").items() if weights[name] != content]
    measured(
        "training killed 30 times with --resume, its newest checkpoint cut 6 times",
        f"{len(weights)} weights, {len(differing)} differ from an uninterrupted run; last kill after step {step}",
    )
    assert cut == 6
    assert not differing


@pytest.mark.stress
def test_a_full_disk_while_training_keeps_the_last_checkpoint(
    folder: Path, measured: Callable[[str, str], None]
) -> None:
    """A small file system of its own fills up during the run; with room again, the run ends in the same bits."""
    (folder / "config.toml").write_text(MANY_STEPS)
    disk = folder / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True, check=False)
    if mount.returncode:
        pytest.skip("this user may not mount a file system")
    try:
        whole = start_training(folder, "--out", "whole")
        process = start_training(folder, "--out", "disk/model")
        wait_for_checkpoint(disk / "model", 20, process)
        filler = disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1000))
        _, err = process.communicate(timeout=200)
        assert (process.returncode, err.count("\n")) == (3, 1), err
        assert "No space left on device" in err
        kept = sorted((disk / "model" / "checkpoints").iterdir())
        for path in kept:
            np.load(path, allow_pickle=False).close()
        filler.unlink()
        code, _, err = run_training(folder, "--out", "disk/model", "--resume")
        assert code == 0, err
        whole.communicate(timeout=200)
        assert read_weights(folder / "whole") == read_weights(disk / "model")
        measured(
            "a full disk while training", f"exit 3, {len(kept)} whole checkpoints; continued, not a weight differs"
        )
    finally:
        subprocess.run(["umount", disk], check=True)


def test_the_error_for_a_nonfinite_loss_names_step_head_and_layer() -> None:
    """The weights of the convolution are infinite; or the outputs are finite, and a target is too large for float32."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(8, 8, 8, 2)).astype(np.float32)
    targets = {"digit": np.zeros(8, np.int32), "slant": np.full((8, 1), 3.0, np.float32)}
    examples = Examples(tuple("abcdefgh"), images, targets)

    def fit_fault(model: Model, examples: Examples) -> str:
        with pytest.raises(Fault) as error:
            list(fit_model(model, examples, examples, settings=FitSettings(epochs=1, batch=4), run=FitRun(seed=0)))
        return str(error.value)

    model = BY_NAME["conv2d_random_bias"].model()
    before = model.network.get_layer("final").get_weights()
    model.weights[0].parameters["loc"].assign(np.full(model.weights[0].shape, np.inf, np.float32))
    assert " at step 1 (heads digit, slant, layer conv): lower fit.learning_rate" in fit_fault(model, examples)
    for old, new in zip(before, model.network.get_layer("final").get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)  # a step that is not finite updates nothing
    far = {**targets, "slant": np.full((8, 1), 1e30, np.float32)}
    message = fit_fault(BY_NAME["conv2d_random_bias"].model(), Examples(examples.files, images, far))
    assert "fit: the loss is inf at step 1 (head slant" in message


def test_patience_ends_with_the_best_weights() -> None:
    """With random labels the validation ELBO is best within the first epochs, and the fit ends with those weights."""
    rng = np.random.default_rng(0)

    def split(count: int) -> Examples:
        images = rng.normal(size=(count, 8, 8, 2)).astype(np.float32)
        digit, slant = rng.integers(0, 3, count).astype(np.int32), rng.normal(3, 0.5, (count, 1)).astype(np.float32)
        return Examples(tuple(map(str, range(count))), images, {"digit": digit, "slant": slant})

    model, train, validation = BY_NAME["conv2d_random_bias"].model(), split(32), split(64)
    settings = FitSettings(
        epochs=60, batch=16, patience=3, draws=2, learning_rate=0.05, kl_weight=0.0, loss_weights="learned"
    )
    elbos, weights = [], []
    for report in fit_model(model, train, validation, settings=settings, run=FitRun(seed=0)):
        elbos.append(report.elbo)
        weights.append(model.network.get_weights())
    assert len(elbos) < 60
    best = int(np.argmax(elbos))
    assert len(elbos) == best + 4
    for actual, expected in zip(model.network.get_weights(), weights[best], strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
    ("count", "batch", "epochs"), [(3600, 64, 30), (1280, 64, 50), (80, 64, 300), (80, 16, 200), (1, 64, 300)]
)
def test_few_images_get_more_epochs(count: int, batch: int, epochs: int) -> None:
    """30, or as many as make 1,000 steps: 1,280 / 64 = 20 steps, 80 / 16 = 5; at most 300."""
    settings = resolve_epochs(FitSettings(batch=batch), count)
    assert settings.epoch_count == epochs
    assert resolve_epochs(FitSettings(epochs=7), count).epoch_count == 7
