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
from probrt.trainer.config.explain import explained
from probrt.trainer.config.settings import DataSettings, FitSettings
from probrt.trainer.heads import AnyHead
from probrt.trainer.layers.weight_settings import WeightSettings

Positive = Annotated[int, Meta(ge=1)]


class Final(Struct, frozen=True, forbid_unknown_fields=True):
    """The final convolution that all heads share; kernel: its window."""

    kernel: Positive = 1


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


def load(path: Path) -> Config:
    """The config in a TOML file; ConfigError gives the path in the file and what was expected."""
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
        raise ConfigError(f"{path}: {explained(str(error), Config, settings)}") from None
    names = [head.name for head in config.heads]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{path}: heads: two heads are named {name!r}; every head needs a name of its own")
    return config


def filled(config: Config) -> str:
    """The config with every default filled in, as TOML; what is left out by default (null) stays out."""
    import tomli_w

    return tomli_w.dumps(_without_null(msgspec.to_builtins(config)))


def json_schema() -> dict[str, Any]:
    """The JSON Schema that docs/config.schema.json holds."""
    return extensions.json_schema(Config)


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_null(one) for key, one in value.items() if one is not None}
    return [_without_null(one) for one in value] if isinstance(value, list | tuple) else value
