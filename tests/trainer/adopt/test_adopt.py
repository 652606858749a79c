"""Adopted models of TFP's layers have equal means, and equal spread within its standard error."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
RUNS = 400
ADOPT = """
import sys
import numpy as np
sys.path.insert(0, {here!r})
from pathlib import Path
from probrt.runtime.bundle.manifest import Input
from probrt.trainer import heads, store
from probrt.trainer.adopt import adopt
from probrt.trainer.variational.handlers import DrawHandler, MeanHandler, use_handler
import tensorflow as tf
folder = Path(sys.argv[2])
saved = np.load(folder / "answers.npz")
input = Input(shape=list(saved["images"].shape[1:]), colour="none", resize="none")
digit = heads.Categorical(name="digit", labels=["a", "b", "c"])
card = dict(name="legacy", input=input, heads=[digit])
adopt("legacy_models:" + sys.argv[1], folder / "weights.h5", folder / "model", **card, images=saved["images"])
model, _ = store.load_model(folder / "model")
with use_handler(MeanHandler()):
    centre = model.channels(saved["images"])["digit"].numpy()
@tf.function(autograph=False)
def draw(index):
    with use_handler(DrawHandler(1, index)):
        return model.channels(saved["images"])["digit"]
draws = np.stack([draw(tf.constant(index)).numpy() for index in range(int(sys.argv[3]))])
np.savez(folder / "ours.npz", centre=centre, draws=draws)
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=quiet)


@pytest.mark.parametrize(
    "name", ["image_model", *(pytest.param(name, marks=pytest.mark.stress) for name in ("line_model", "volume_model"))]
)
def test_adopted_models_answer_like_the_legacy_models(name: str, tmp_path: Path) -> None:
    for arguments in ([str(HERE / "legacy_models.py")], ["-c", ADOPT.format(here=str(HERE))]):
        process = run(*arguments, name, str(tmp_path), str(RUNS))
        assert process.returncode == 0, process.stderr[-2000:]
    theirs, ours = np.load(tmp_path / "answers.npz"), np.load(tmp_path / "ours.npz")
    np.testing.assert_allclose(ours["centre"], theirs["centre"], atol=1e-5)
    first, second = ours["draws"], theirs["answers"]
    mean_error = np.sqrt((first.var(0) + second.var(0)) / RUNS)
    assert (np.abs(first.mean(0) - second.mean(0)) < 5.0 * mean_error).all()
    spreads = [np.square(draws - draws.mean(0)) for draws in (first, second)]
    error = np.sqrt((spreads[0].var(0) + spreads[1].var(0)) / RUNS)
    assert (np.abs(spreads[0].mean(0) - spreads[1].mean(0)) < 5.0 * error).all()


def test_the_error_names_what_cannot_be_adopted() -> None:
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from probrt.trainer.adopt.legacy import build_legacy_model\n"
        "from probrt.trainer.adopt.network import convert_network\n"
        "for builder in ('legacy_models:lambda_model', 'legacy_models:gamma_model', 'legacy_models:nothing'):\n"
        "    try: convert_network(build_legacy_model(builder))\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
    )
    lines = run("-c", code, str(HERE)).stdout.splitlines()
    assert lines[0] == "ConfigError lambda: a Lambda layer cannot be adopted; build the model without it"
    assert lines[1].startswith(
        "ConfigError first: kernel posterior: Gamma cannot be adopted; use one of Normal, Laplace"
    )
    assert lines[2].startswith("ConfigError legacy_models:nothing: no such function")
