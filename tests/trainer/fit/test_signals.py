"""A signal waits until it is delivered, and then reaches the handler that was installed before.

Each case runs in a process of its own: a signal that reaches the default handler must not end the tests.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

START = """
import signal
from probrt.trainer.fit.signals import defer_signals
received = []
signal.signal(signal.SIGTERM, lambda signum, frame: received.append(signum))
"""
CASES = {
    "it waits until it is delivered": """
        with defer_signals() as pending:
            signal.raise_signal(signal.SIGTERM)
            assert received == []
            assert [deferred.number for deferred in pending] == [signal.SIGTERM]
            pending[0].deliver()
            assert received == [signal.SIGTERM]
    """,
    "the earlier handler is back after the block": """
        with defer_signals() as pending:
            pass
        signal.raise_signal(signal.SIGTERM)
        assert (received, pending) == ([signal.SIGTERM], [])
    """,
    # A fit that is given up leaves its block when it is collected, at any moment after that.
    "a handler that was installed meanwhile stays": """
        def fit():
            with defer_signals():
                yield
        abandoned = fit()
        next(abandoned)
        signal.signal(signal.SIGTERM, lambda signum, frame: received.append(-signum))
        abandoned.close()
        signal.raise_signal(signal.SIGTERM)
        assert received == [-signal.SIGTERM]
    """,
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_signal(case: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", START + textwrap.dedent(case)], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
