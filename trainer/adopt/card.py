"""The TOML file of `probrt adopt`: what a legacy model does not tell about itself."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import ConfigError, one_line
from probrt.trainer.extensions import convert_record
from probrt.trainer.heads import AnyHead

T = TypeVar("T")


class AdoptionCard(Struct, frozen=True, forbid_unknown_fields=True):
    """The model's name, its input and its heads, in the order of its output channels."""

    name: str
    input: Input
    heads: list[AnyHead]


def read_card(path: Path, kind: type[T]) -> T:
    """Reads a card of some kind from a TOML file; raises ConfigError with what is wrong in it."""
    try:
        return convert_record(msgspec.toml.decode(path.read_bytes()), kind)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or one_line(error)}") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise ConfigError(f"{path}: {one_line(error)}") from None


def load_card(path: Path) -> AdoptionCard:
    """Reads the card of a legacy model; raises ConfigError with what is wrong in it."""
    return read_card(path, AdoptionCard)
