"""A signal waits until it is delivered, and then reaches the handler that was installed before."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from probrt.trainer.fit.signals import defer_signals


@pytest.fixture
def received() -> Iterator[list[int]]:
    """Installs a handler of SIGTERM and returns the list of signals that reach it."""
    numbers: list[int] = []
    original = signal.signal(signal.SIGTERM, lambda signum, frame: numbers.append(signum))
    yield numbers
    signal.signal(signal.SIGTERM, original)


def test_a_signal_waits_until_it_is_delivered(received: list[int]) -> None:
    with defer_signals() as pending:
        signal.raise_signal(signal.SIGTERM)
        assert received == []
        assert [deferred.number for deferred in pending] == [signal.SIGTERM]
        pending[0].deliver()
        assert received == [signal.SIGTERM]


def test_the_earlier_handler_is_back_after_the_block(received: list[int]) -> None:
    with defer_signals() as pending:
        pass
    signal.raise_signal(signal.SIGTERM)
    assert (received, pending) == ([signal.SIGTERM], [])


def test_a_handler_installed_meanwhile_stays(received: list[int]) -> None:
    """A fit that is given up leaves its block when it is collected, at any moment after that."""

    def fit() -> Iterator[None]:
        with defer_signals():
            yield

    abandoned = fit()
    next(abandoned)
    signal.signal(signal.SIGTERM, lambda signum, frame: received.append(-signum))
    abandoned.close()
    signal.raise_signal(signal.SIGTERM)
    assert received == [-signal.SIGTERM]
