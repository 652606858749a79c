"""`probrt train` on the command line: what it refuses before and after the fit, and the notes that it ends with."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probrt.runtime.errors import DataError
from probrt.trainer.fit.checkpoints import Checkpoints, FitState

CONFIG = """
name = "t"
[data]
folder = "data"
features = ["x", "y"]
[input]
shape = [2]
colour = "none"
resize = "none"
[backbone]
name = "dense"
widths = [4]
[[heads]]
name = "kind"
likelihood = "categorical"
labels = ["a", "b"]
[[heads]]
name = "size"
likelihood = "normal"
[fit]
epochs = 2
batch = 16
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Returns a folder with a config and a table of 64 rows of noise, from which nothing can be learned."""
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    (tmp_path / "config.toml").write_text(CONFIG)
    rows = [f"{x:.3f},{y:.3f},{'aaab'[index % 4]},{z:.3f}" for index, (x, y, z) in enumerate(rng.normal(size=(64, 3)))]
    (tmp_path / "data" / "metadata.csv").write_text("\n".join(["x,y,kind,size", *rows]))
    return tmp_path


def test_heads_that_have_learned_nothing_end_the_summary(root: Path, called: Callable[..., Any]) -> None:
    result = called("train", "config.toml", "--out", "model", cwd=root)
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[-1].startswith("model: trained in")
    notes = lines[next(place for place, line in enumerate(lines) if line.startswith("calibrated")) :]
    kind, size = (next(line for line in notes if line.startswith(f"note: {head}: ")) for head in ("kind", "size"))
    assert "has learned nothing: its accuracy on the validation split is" in kind
    assert "no better, beyond chance, than that of always answering a" in kind
    assert "no better, beyond chance, than that of always answering the mean" in size
    # A finished model is no stopped one, and one that was stopped says how to go on.
    (root / "model" / "model.json").rename(root / "model.json")
    Checkpoints(root / "model" / "checkpoints").save(FitState(step=7), {})
    result = called("export", "model", cwd=root)
    assert result.code == 2
    assert result.err == (
        "probrt: model: its training stopped after step 7; go on with probrt train CONFIG --out model --resume\n"
    )


def test_a_fit_that_diverges_is_no_model(root: Path, called: Callable[..., Any]) -> None:
    (root / "config.toml").write_text(CONFIG + "learning_rate = 1e3\nwarmup = 0.0\nkl_weight = 0.0\n")
    result = called("train", "config.toml", "--out", "model", cwd=root)
    assert result.code == 3
    assert "probrt: fit: the loss has grown from" in result.err
    assert "lower fit.learning_rate or raise fit.warmup" in result.err
    assert not (root / "model" / "model.json").exists()


def test_an_out_that_cannot_be_written_is_refused_before_the_fit(root: Path, called: Callable[..., Any]) -> None:
    (root / "file").write_text("")
    result = called("train", "config.toml", "--out", "file/model", cwd=root)
    assert (result.code, result.err) == (3, "probrt: --out file/model: cannot be written (Not a directory)\n")
    result = called("train", "config.toml", "--out", "/proc/probrt/model", cwd=root)
    assert (result.code, "--out /proc/probrt/model: cannot be written (" in result.err) == (3, True)


def test_a_resume_with_nothing_to_resume_is_refused(root: Path, called: Callable[..., Any]) -> None:
    result = called("train", "config.toml", "--out", "mdoel", "--resume", cwd=root)
    assert result.code == 2
    assert result.err == "probrt: --resume: --out mdoel holds no checkpoint; check the name, or leave out --resume\n"
    assert not (root / "mdoel").exists()


# Trains in a process of its own, with Ctrl-C during step 2; whoever started the tests may have it ignored.
STOPPED = """
import dataclasses, signal, sys
from probrt.runtime import cli
from probrt.trainer import train
signal.signal(signal.SIGINT, signal.default_int_handler)
fit_model = train.fit_model

def interrupt(*arguments, run, **settings):
    def on_step(number, steps, result):
        if number == 2:
            signal.raise_signal(signal.SIGINT)
    return fit_model(*arguments, run=dataclasses.replace(run, on_step=on_step), **settings)

train.fit_model = interrupt
sys.exit(cli.call(["train", "config.toml", "--out", "model"]))
"""


def test_ctrl_c_says_how_to_go_on_and_a_refused_resume_what_differs(root: Path, called: Callable[..., Any]) -> None:
    stopped = subprocess.run(
        [sys.executable, "-c", STOPPED], cwd=root, capture_output=True, text=True, timeout=300, check=False
    )
    assert stopped.returncode == 130, stopped.stderr
    assert "stopped at step 2 of 8; go on with --resume" in stopped.stdout
    text = CONFIG.replace("batch = 16", "batch = 8").replace("widths = [4]", "widths = [5]")
    (root / "config.toml").write_text(text)
    refused = called("train", "config.toml", "--out", "model", "--resume", cwd=root)
    assert refused.code == 2
    assert (
        "config.backbone.widths was [4] and is [5]; config.fit.batch was 16 and is 8; start again with --overwrite"
        in refused.err
    )
    table = root / "data" / "metadata.csv"
    (root / "config.toml").write_text(CONFIG)
    data = table.read_text()
    table.write_text(data + "\n0.5,0.5,a,0.1")
    refused = called("train", "config.toml", "--out", "model", "--resume", cwd=root)
    assert (refused.code, "the data differ" in refused.err) == (2, True)
    table.write_text(data)
    (root / "config.toml").write_text(CONFIG.replace("epochs = 2", "epochs = 3"))
    longer = called("train", "config.toml", "--out", "model", "--resume", cwd=root)
    assert longer.code == 0, longer.err
    assert "epoch   3/3" in longer.out
    assert json.loads((root / "model" / "model.json").read_text())["provenance"]["config"]["fit"]["epochs"] == 3
    again = called("train", "config.toml", "--out", "model", "--resume", cwd=root)
    assert (again.code, "is finished already" in again.out) == (0, True)


def test_a_checkpoint_names_what_differs(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(FitState(origin={"config": {"fit": {"batch": 8}}, "data": "1"}), {})
    with pytest.raises(
        DataError, match=r"config\.fit\.batch was 8 and is absent; config\.fit\.draws was absent and is 2"
    ):
        checkpoints.load_newest({"config": {"fit": {"draws": 2}}, "data": "1"})
