"""Every message about a config gives the path in the file and what was expected."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from probrt.runtime.errors import ConfigError
from probrt.trainer.config.config import load_config, to_toml
from probrt.trainer.config.settings import FitSettings
from probrt.trainer.variational.posteriors.location_scale import NormalPosterior
from probrt.trainer.variational.priors.families import NormalPrior

WEIGHTS = """
[weights]
posterior = { name = "normal", initial_scale = 0.3 }
prior = { name = "learned_normal" }
estimator = "flipout"
"""
DIGITS = Path(__file__).parents[3] / "examples" / "digits" / "config.toml"
GOOD = DIGITS.read_text().partition("\n[weights]")[0] + WEIGHTS


def test_the_demo_config_loads(root: Path) -> None:
    config = load_config(root / "examples" / "digits" / "config.toml")
    assert [head.name for head in config.heads] == ["digit", "slant", "ink"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = 24", 'epochs = "many"', "fit.epochs: invalid enum value 'many'; choose from auto, or give a number"),
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


@pytest.mark.parametrize(
    ("weights", "scale"),
    [
        ("", 0.05),
        ('[weights]\nestimator = "ivon"', 0.1),
        ('[weights]\nposterior = { name = "normal" }', 0.1),
        ('[weights]\nposterior = { name = "normal", initial_scale = 0.02 }\nestimator = "flipout"', 0.02),
    ],
)
def test_only_a_config_that_states_neither_posterior_nor_estimator_starts_narrow(
    tmp_path: Path, weights: str, scale: float
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f"{GOOD.removesuffix(WEIGHTS)}\n{weights}\n")
    config = load_config(path)
    assert config.weights.posterior == NormalPosterior(initial_scale=scale)
    path.write_text(to_toml(config))
    assert load_config(path) == config


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such config file"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="is a folder"):
        load_config(tmp_path)


HALF = """
[data]
folder = "pictures"
[input]
shape = [8, 8, 3]
colour = "rgb"
[[heads]]
likelihood = "categorical"
name = "kind"
[fit]
epochs = 5
"""


def test_all_missing_fields_are_named_in_one_run(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(HALF)
    with pytest.raises(ConfigError, match=r"missing: name, input\.resize, heads\[0\]\.labels; .*--print-config"):
        load_config(path)
    path.write_text("")
    with pytest.raises(ConfigError, match="missing: name, data, input, heads;"):
        load_config(path)
    path.write_text(HALF.replace("epochs = 5", 'epochs = "5"\nbach = 4'))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    for text in ("missing: name, input.resize", "fit.epochs: invalid enum value '5'", "fit.bach: unknown key"):
        assert text in str(caught.value)
    assert str(caught.value).endswith("did you mean batch?")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('colour = "grey"', 'color = "gray"'),
        ('colour = "grey"', 'colour = "Grey"'),
        ('colour = "grey"', 'colour = "grayscale"'),
        ('likelihood = "bernoulli"', 'likelihood = "Bernoulli"'),
        ('name = "conv"', 'name = "Conv"'),
        ('labels = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]', "labels = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"),
    ],
)
def test_other_spellings_are_understood(tmp_path: Path, old: str, new: str) -> None:
    assert old in GOOD
    path, notes = tmp_path / "config.toml", []
    path.write_text(GOOD)
    expected = load_config(path, notes.append)
    assert notes == []
    path.write_text(GOOD.replace(old, new, 1))
    assert load_config(path, notes.append) == expected
    assert bool(notes) == ("labels" not in old)


def test_the_name_of_a_head_may_have_spaces(tmp_path: Path) -> None:
    path, notes = tmp_path / "config.toml", []
    path.write_text(GOOD.replace('name = "slant"', 'name = "Slant of the digit"', 1))
    head = load_config(path, notes.append).heads[1]
    assert (head.name, head.column) == ("slant_of_the_digit", "Slant of the digit")
    assert notes == ["head 'Slant of the digit' is named slant_of_the_digit; its column is 'Slant of the digit'"]


@pytest.mark.parametrize("text", ["", HALF, GOOD])
def test_a_half_written_config_prints_every_key_with_its_meaning(
    tmp_path: Path, text: str, called: Callable[..., Any]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    result = called("train", "config.toml", "--print-config", cwd=tmp_path)
    assert result.code == 0, result.err
    printed = tomllib.loads(result.out)
    assert printed["fit"]["epochs"] == (24 if text == GOOD else 5 if text == HALF else FitSettings().epochs)
    assert "# highest learning rate; it falls" in result.out
    assert ("# name = …  (required)" in result.out) == (text != GOOD)
    assert ("# resize = …  (required) one of: bilinear, none" in result.out) == (text != GOOD)
    if text == GOOD:
        expected = load_config(path)
        path.write_text(result.out)
        assert load_config(path) == expected
