"""Signals that ask a fit to stop: they wait until the step is finished and a checkpoint is written."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

SignalHandler = Callable[[int, FrameType | None], Any] | int | None


@dataclass(frozen=True)
class PendingSignal:
    """A signal that has arrived, and the handler that was installed before the fit."""

    number: int
    handler: SignalHandler

    def deliver(self) -> None:
        """Installs the earlier handler again and raises the signal for it."""
        signal.signal(self.number, self.handler)
        signal.raise_signal(self.number)


@contextmanager
def defer_signals() -> Iterator[list[PendingSignal]]:
    """Collects SIGTERM and SIGINT during the block instead of acting on them.

    The list stays empty outside the main thread, where Python does not allow signal handlers. A handler that somebody
    installed after the block began stays: a fit that is given up midway leaves the block only when it is collected.
    """
    pending: list[PendingSignal] = []
    handlers: dict[int, SignalHandler] = {}

    def collect(number: int, frame: FrameType | None) -> None:
        pending.append(PendingSignal(number, handlers[number]))

    try:
        for stop in (signal.SIGTERM, signal.SIGINT):
            handlers[stop] = signal.signal(stop, collect)
    except ValueError:
        pass
    try:
        yield pending
    finally:
        for signum, handler in handlers.items():
            if signal.getsignal(signum) is collect:
                signal.signal(signum, handler)
