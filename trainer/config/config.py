"""The training config: one strict TOML schema."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, inspect

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import ConfigError
from probrt.trainer import extensions
from probrt.trainer.backbones import AnyBackbone, ConvStack
from probrt.trainer.config.explain import explain_faults, find_missing
from probrt.trainer.config.settings import DataSettings, FitSettings, PositiveInt
from probrt.trainer.config.spelling import Note, respell
from probrt.trainer.config.template import write_template
from probrt.trainer.heads import AnyHead
from probrt.trainer.layers.weight_settings import WeightSettings


class Final(Struct, frozen=True, forbid_unknown_fields=True):
    """The final convolution that all heads share. kernel: side of its window."""

    kernel: PositiveInt = 1


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """A whole training config.

    name: of the model and its bundles.
    data: where the examples are, how they are split and augmented.
    input: what the model takes.
    heads: what the model predicts, one table each.
    seed: of the split, the initial weights, the order of examples, and augmentation.
    backbone: the part of the network that all heads share.
    weights: how layers get their weights.
    final: the final convolution that all heads share.
    fit: how the model is fitted.
    """

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*\Z")]
    data: DataSettings
    input: Input
    heads: Annotated[list[AnyHead], Meta(min_length=1)]
    seed: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    backbone: AnyBackbone = ConvStack()
    weights: WeightSettings = WeightSettings()
    final: Final = Final()
    fit: FitSettings = FitSettings()


def load_config(path: Path, note: Note = lambda line: None) -> Config:
    """Reads a config from a TOML file; `note` takes a line for each spelling that was changed.

    Raises ConfigError with the path of every faulty key in the file and what was expected there.
    """
    settings = _read_settings(path, note)
    try:
        config = extensions.convert_record(settings, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {explain_faults(Config, settings, error)}") from None
    names = [head.name for head in config.heads]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{path}: heads: two heads are named {name!r}; every head needs a name of its own")
    return config


def complete_config(path: Path) -> str:
    """Returns the config of a TOML file with every key and its meaning, as TOML; required keys may be missing there.

    Raises ConfigError for any other fault.
    """
    settings = _read_settings(path, lambda line: None)
    if not any(find_missing(inspect.type_info(Config), settings)):
        return to_toml(load_config(path))
    try:
        extensions.convert_record(settings, Config)
    except msgspec.ValidationError as error:
        # The schema names keys that are missing after all other faults of their table.
        if not str(error).startswith("Object missing required field"):
            raise ConfigError(f"{path}: {explain_faults(Config, settings, error)}") from None
    return write_template(Config, settings)


def _read_settings(path: Path, note: Note) -> dict[str, Any]:
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; name the config file in it") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    return respell(Config, settings, note)


def to_toml(config: Config) -> str:
    """Returns the config as TOML, with every default written out and what each key means."""
    return write_template(Config, msgspec.to_builtins(config))


def json_schema() -> dict[str, Any]:
    """Returns the JSON Schema of the config, as docs/config.schema.json holds it."""
    return extensions.json_schema(Config)
