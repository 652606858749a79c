"""The training config: one strict TOML schema."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import ConfigError
from probrt.trainer import extensions
from probrt.trainer.backbones import AnyBackbone, ConvStack
from probrt.trainer.config.explain import explain_fault
from probrt.trainer.config.settings import DataSettings, FitSettings, PositiveInt
from probrt.trainer.heads import AnyHead
from probrt.trainer.layers.weight_settings import WeightSettings


class Final(Struct, frozen=True, forbid_unknown_fields=True):
    """The final convolution that all heads share. kernel: side of its window."""

    kernel: PositiveInt = 1


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """A whole training config."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*\Z")]
    data: DataSettings
    input: Input
    heads: Annotated[list[AnyHead], Meta(min_length=1)]
    seed: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    backbone: AnyBackbone = ConvStack()
    weights: WeightSettings = WeightSettings()
    final: Final = Final()
    fit: FitSettings = FitSettings()


def load_config(path: Path) -> Config:
    """Reads a config from a TOML file.

    Raises ConfigError with the path of the faulty key in the file and what was expected there.
    """
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; name the config file in it") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    try:
        config = extensions.convert_record(settings, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {explain_fault(str(error), Config, settings)}") from None
    names = [head.name for head in config.heads]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{path}: heads: two heads are named {name!r}; every head needs a name of its own")
    return config


def to_toml(config: Config) -> str:
    """Returns the config as TOML, with every default written out; a null default has no line."""
    import tomli_w

    return tomli_w.dumps(_drop_null(msgspec.to_builtins(config)))


def json_schema() -> dict[str, Any]:
    """Returns the JSON Schema of the config, as docs/config.schema.json holds it."""
    return extensions.json_schema(Config)


def _drop_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _drop_null(item) for key, item in value.items() if item is not None}
    return [_drop_null(item) for item in value] if isinstance(value, list | tuple) else value
