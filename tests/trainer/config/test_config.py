"""Every message about a config gives the path in the file and what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from probrt.runtime.errors import ConfigError
from probrt.trainer.config.config import load_config, to_toml
from probrt.trainer.variational.priors.families import NormalPrior

GOOD = (Path(__file__).parents[3] / "examples" / "digits" / "config.toml").read_text()


def test_the_demo_config_loads(root: Path) -> None:
    config = load_config(root / "examples" / "digits" / "config.toml")
    assert [head.name for head in config.heads] == ["digit", "slant", "ink"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = 24", 'epochs = "many"', "fit.epochs: expected `int`, got `str`"),
        ("epochs = 24", "epochs = 0", "fit.epochs: expected `int` >= 1"),
        ("epochs = 24", "epoch = 24", "fit.epoch: unknown key; known here: epochs, batch"),
        ("[fit]", "[fitting]", "fitting: unknown key; known here: name, data"),
        ("[final]\nkernel = 3", "[final]\nsize = 3", "final.size: unknown key; known here: kernel"),
        ('unit = "rad"', 'units = "rad"', "heads[1].units: unknown key; known here: likelihood, name, column"),
        ('name = "conv"', 'name = "resnet"', "backbone.name: invalid value 'resnet'; choose from conv, dense"),
        ('colour = "grey"', 'colour = "blue"', "input.colour: invalid enum value 'blue'; choose from "),
        ('likelihood = "bernoulli"', 'likelihood = "coin"', "heads[2].likelihood: invalid value 'coin'; choose from "),
        ('= { name = "normal"', '= { name = "nrmal"', "posterior.name: invalid value 'nrmal'; choose from normal, "),
        ('estimator = "flipout"', 'estimator = "flip"', "estimator: invalid enum value 'flip'; choose from auto, "),
        ('{ name = "learned_normal" }', '{ name = "gamma" }', "weights: prior: Gamma lives on (0, inf), which does"),
        ('{ name = "normal", initial_scale = 0.3 }', '{ name = "gamma" }', "weights: estimator: flipout needs"),
        ('name = "slant"', 'name = "digit"', "two heads are named 'digit'"),
        ('name = "slant"', 'name = "Slant!"', "heads[1].name: expected `str` matching regex"),
        ('name = "digits"', "name = ", "not TOML"),
        ('= { name = "normal"', '= { name = "normal", spread = 1', "weights.posterior.spread: unknown key"),
    ],
)  # fmt: skip
def test_faults_are_explained(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    path = tmp_path / "config.toml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_default_prior_is_the_usual_prior_of_the_posterior(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        GOOD.replace('{ name = "normal", initial_scale = 0.3 }', '{ name = "rank_one" }')
        .replace('prior = { name = "learned_normal" }', "")
        .replace('estimator = "flipout"', "")
    )
    config = load_config(path)
    assert config.weights.prior == NormalPrior(loc=1.0, scale=0.1)
    assert "scale = 0.1" in to_toml(config)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such config file"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="is a folder"):
        load_config(tmp_path)
