"""docs/layers.md: its tables are those of the code, and its config block is one."""

import importlib.util
import re
import tomllib
from pathlib import Path

import keras
import numpy as np
import pytest

from probrt.trainer import layers
from probrt.trainer.extensions import convert_record
from probrt.trainer.heads.categorical import OrdinalHead
from probrt.trainer.layers.weight_settings import WeightSettings

DOCS = Path(__file__).parents[3] / "docs"


def test_tables_are_what_the_code_allows():
    spec = importlib.util.spec_from_file_location("write_layers", DOCS / "write_layers.py")
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    text = (DOCS / "layers.md").read_text()
    assert writer.write_page(text) == text, "run python docs/write_layers.py"


def test_the_blocks_run_and_say_the_same():
    text = (DOCS / "layers.md").read_text()
    space: dict = {}
    build, call = re.findall(r"```python\n(.*?)```", text, re.S)
    exec(build, space)
    space["model"] = keras.Model(space["images"], space["features"])
    layer = space["model"].layers[-1]
    space["images"] = np.ones((2, 28, 28, 1), np.float32)
    exec(call, space)
    assert space["features"].shape == (2, 28, 28, 32)
    config = tomllib.loads(re.search(r"```toml\n(.*?)```", text, re.S).group(1))
    named = convert_record(config["weights"], WeightSettings).conv(2, 32, 3, layer.name, "relu")
    assert named.get_config() == {**layer.get_config(), "dtype": named.get_config()["dtype"]} | {"noise_ids": {}}


def test_the_head_of_the_page_on_models_is_one():
    text = (DOCS / "models.md").read_text()
    (head,) = tomllib.loads(re.search(r"```toml\n(.*?)```", text, re.S).group(1))["heads"]
    assert convert_record(head, OrdinalHead).own.widths == (32,)


@pytest.mark.parametrize(
    ("rank", "config"),
    [
        (2, 'estimator = "reparameterization"\nbias_posterior = {name = "normal"}'),
        (2, 'posterior = {name = "laplace"}\nprior = {name = "laplace"}\nestimator = "reparameterization"'),
        (3, 'prior = {name = "laplace"}\nestimator = "flipout"'),
        (3, 'posterior = {name = "normal_mixture", components = 2}\nestimator = "flipout"'),
        (3, 'posterior = {name = "beta", low = 0.0}\nprior = {name = "gamma"}\nestimator = "reparameterization"'),
        (2, 'posterior = {name = "vae"}\nestimator = "auto"'),
    ],
)
def test_the_named_systems_work_as_written_in_a_config(rank, config):
    weights = convert_record(tomllib.loads(config), WeightSettings)
    layer = weights.conv(rank, 4, 3, "conv")
    layer.build((None, *(5,) * rank, 2))
    again = type(layer).from_config(layer.get_config())
    assert isinstance(again, getattr(layers, f"Conv{rank}D"))
    assert (again.kernel_posterior, again.kernel_prior) == (weights.posterior, weights.prior)
