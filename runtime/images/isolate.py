"""Decodes in processes of their own: a decoder that dies, hangs or is taken over costs its image alone.

Each reader has one process (`isolate_worker.py`), and starts a new one when it has died. The two exchange lengths, JSON
and raw pixels, nothing that could run.
"""

import contextlib
import json
import math
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.images.decode import matches_shape
from probrt.runtime.images.loader import LoadedImage

SECONDS = 30.0
_MAX_REPLY = 1 << 20
_WORKER = "probrt.runtime.images.isolate_worker"


@contextlib.contextmanager
def open_isolated_reader(input: Input, seconds: float = SECONDS) -> Iterator["IsolatedReader"]:
    """Opens a reader and ends its process at the end of the block.

    seconds: what an image may take.
    """
    reader = IsolatedReader(input, seconds)
    try:
        yield reader
    finally:
        reader.close()


class IsolatedReader:
    """Reads and decodes files like `load_image`, in a process of its own. Not for several threads at once."""

    def __init__(self, input: Input, seconds: float) -> None:
        self._input = input
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, index: int, name: str, reserve: Callable[[int], None]) -> LoadedImage:
        """Reads and decodes one file; the death of the process becomes the reason that the file is unfit."""
        try:
            if self._process is None or self._process.poll() is not None:
                self._process = self._start()
            return self._ask(self._process, index, name, reserve)
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            return LoadedImage(index, name, error=self._explain_death(error))

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> "subprocess.Popen[bytes]":
        settings = msgspec.json.encode({"input": self._input, "seconds": self._seconds}).decode()
        # -P: the working directory, which may hold anything, is no place to import from.
        command = [sys.executable, "-P", "-m", _WORKER, settings]
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the parent
        )

    def _ask(
        self, process: "subprocess.Popen[bytes]", index: int, name: str, reserve: Callable[[int], None]
    ) -> LoadedImage:
        write_message(process.stdin, json.dumps(name).encode())
        while "reserve" in (reply := json.loads(read_message(process.stdout, _MAX_REPLY))):
            reserve(int(reply["reserve"]))
            write_message(process.stdin, b"")
        image = LoadedImage(index, name, reply["sha256"], error=str(reply["error"]))
        if image.error:
            return image
        shape = tuple(int(side) for side in reply["shape"])
        if not matches_shape(shape, self._input.shape):
            raise ValueError("a reply of another shape")
        size = 4 * math.prod(shape)
        pixels = np.frombuffer(read_message(process.stdout, size), np.float32).reshape(shape)
        affine = None if reply["affine"] is None else np.array(reply["affine"], np.float64).reshape(4, 4)
        return LoadedImage(index, name, image.sha256, pixels, int(reply["frames"]), affine=affine)

    def _explain_death(self, error: Exception) -> str:
        process = self._process
        self._process = None
        if process is None:
            return f"its decoder cannot be started: {error}"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)  # one that has closed its pipe is about to end
        code = process.poll()
        process.kill()
        process.communicate()
        if code == -getattr(signal, "SIGALRM", 0):
            return f"takes longer than {self._seconds:g} s to decode"
        return f"its decoder died (exit code {code})" if code is not None else f"its decoder failed: {error}"


def write_message(stream: Any, body: bytes | memoryview) -> None:
    """Writes bytes after their length."""
    stream.write(struct.pack("<Q", len(body)))
    stream.write(body)
    stream.flush()


def read_message(stream: Any, limit: int) -> bytearray:
    """Reads one message of at most `limit` bytes; EOFError if the stream ends first, ValueError if it is longer."""
    (length,) = struct.unpack("<Q", _read_all(stream, bytearray(8)))
    if length > limit:
        raise ValueError("a message that is too long")
    return _read_all(stream, bytearray(length))


def _read_all(stream: Any, buffer: bytearray) -> bytearray:
    view = memoryview(buffer)
    while view:
        count = stream.readinto(view)
        if not count:
            raise EOFError("the stream ends inside a message")
        view = view[count:]
    return buffer
