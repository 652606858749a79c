"""A fit that resumes at any step of an epoch ends in the same bits, also where the epoch's last batch is smaller."""

from __future__ import annotations

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from probrt.runtime.bundle.manifest import Input
from probrt.trainer import backbones, heads
from probrt.trainer.build import build_model
from probrt.trainer.config.settings import Augmentation, FitSettings
from probrt.trainer.data import Examples
from probrt.trainer.fit.checkpoints import Checkpoints
from probrt.trainer.fit.loop import FitRun, fit_model
from probrt.trainer.layers.weight_settings import WeightSettings

# An epoch has batches of 32, 32 and 12. Smaller images would hide that TensorFlow sums in another order.
COUNT, BATCH, STEPS_PER_EPOCH = 76, 32, 3
SETTINGS = FitSettings(epochs=2, batch=BATCH, checkpoint=1, mixup=0.2)


def make_examples(count: int) -> Examples:
    rng = np.random.default_rng(count)
    images = rng.integers(0, 255, (count, 28, 28, 1)).astype(np.uint8)
    return Examples(tuple(map(str, range(count))), images, {"kind": rng.integers(0, 2, count).astype(np.int32)})


def fit(folder: Path, *, resume: bool, copies: Path | None = None) -> list[np.ndarray]:
    """Returns the weights of a fit that writes its checkpoints to `folder`; keeps a copy of each in `copies`."""
    keras.utils.set_random_seed(2)
    input = Input(shape=[28, 28, 1], colour="grey", resize="none", range=(0.0, 255.0))
    kind = heads.Categorical(name="kind", labels=["a", "b"])
    backbone = backbones.ConvStack(widths=(16,))
    model = build_model("kinds", input, [kind], backbone=backbone, weights=WeightSettings())
    checkpoints = Checkpoints(folder)

    def copy_newest(*result: object) -> None:
        for path in checkpoints.paths()[:1] if copies else []:
            shutil.copy(path, copies)

    run = FitRun(
        seed=0,
        augmentation=Augmentation(shift=1, photometric=0.5),
        checkpoints=checkpoints,
        resume=resume,
        on_step=copy_newest,
    )
    list(fit_model(model, make_examples(COUNT), make_examples(8), settings=SETTINGS, run=run))
    weights: list[np.ndarray] = model.network.get_weights()
    return weights


@pytest.mark.slow
def test_a_fit_resumes_bit_for_bit_at_every_step_of_an_epoch(tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    whole = fit(tmp_path / "whole", resume=False, copies=copies)
    for step in range(1, STEPS_PER_EPOCH + 1):
        folder = tmp_path / f"resumed-{step}"
        folder.mkdir()
        shutil.copy(copies / f"{step:08d}.npz", folder)
        for number, (expected, weight) in enumerate(zip(whole, fit(folder, resume=True), strict=True)):
            np.testing.assert_array_equal(weight, expected, err_msg=f"resumed after step {step}, weight {number}")
