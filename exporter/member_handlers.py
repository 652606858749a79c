"""The handlers of an ensemble: they say which members run, and each under which handler."""

from __future__ import annotations

from dataclasses import dataclass

from probrt.trainer.variational.handlers import Handler


@dataclass(frozen=True)
class MemberHandler(Handler):
    """Runs one member under a handler of its own; the other members do not run."""

    member: int
    handler: Handler


@dataclass(frozen=True)
class AverageHandler(Handler):
    """Runs every member under a handler of its own and averages their moments."""

    handlers: tuple[Handler, ...]
