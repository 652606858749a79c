"""The process of an isolated reader: decodes the files that it is asked for until its standard input ends."""

import json
import os
import signal
import sys

import msgspec

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.images.isolate import read_message, write_message
from probrt.runtime.images.loader import load_image

MAX_MEMORY = 4 << 30
_MAX_NAME = 1 << 20


class _Settings(msgspec.Struct):
    input: Input
    seconds: float


def main() -> None:
    """Serves requests. A file that takes too long ends the process, wherever its decoder is: SIGALRM has no handler."""
    settings = msgspec.json.decode(sys.argv[1], type=_Settings)
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)  # what a library prints is no reply
    _limit_memory()

    def reserve(size: int) -> None:
        signal_alarm(0)  # the parent may wait for room
        write_message(replies, json.dumps({"reserve": size}).encode())
        read_message(requests, 0)
        signal_alarm(settings.seconds)

    while True:
        try:
            name = json.loads(read_message(requests, _MAX_NAME))
        except EOFError:
            return
        signal_alarm(settings.seconds)
        image = load_image(0, name, settings.input, reserve)
        signal_alarm(0)
        reply = {
            "sha256": image.sha256,
            "error": image.error,
            "frames": image.frames,
            "shape": None if image.pixels is None else image.pixels.shape,
            "affine": None if image.affine is None else image.affine.ravel().tolist(),
        }
        write_message(replies, json.dumps(reply).encode())
        if image.pixels is not None:
            write_message(replies, image.pixels.data.cast("B"))
        del image


def signal_alarm(seconds: float) -> None:
    """Sets the alarm that ends this process, 0 clears it; there are none on Windows."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))


if __name__ == "__main__":
    main()
