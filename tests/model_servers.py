"""Real model servers in processes of their own, and a client of the Open Inference Protocol (V2) over HTTP."""

from __future__ import annotations

import json
import math
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".cache" / "servers"
_TYPES = {"FP32": np.float32, "INT32": np.int32, "INT64": np.int64}
_HEADER = "Inference-Header-Content-Length"


def install_packages(name: str, *words: str) -> Path:
    """Installs pinned packages into a folder of their own, once for all runs, and returns it."""
    folder = CACHE / name
    if not folder.is_dir():
        unfinished = folder.with_name(f"{name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        result = subprocess.run(
            [*pip, "--target", unfinished, *words], capture_output=True, text=True, check=False, timeout=600
        )
        assert result.returncode == 0, f"pip cannot install {' '.join(words)}: {result.stderr[-500:]}"
        unfinished.rename(folder)
    return folder


def find_free_port() -> int:
    """Returns a port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class ServerDiedError(Exception):
    """The server's process ended by itself; holds the end of its log."""


class Server:
    """A running server that speaks V2 over HTTP."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self._log = log

    def check_alive(self) -> None:
        """Raises ServerDiedError if the process has ended."""
        if self.process.poll() is not None:
            raise ServerDiedError(f"exit code {self.process.returncode}: {self._log.read_text()[-2000:]}")

    def wait_until(self, path: str, seconds: float = 60) -> None:
        """Waits until a path answers 200."""
        end = time.monotonic() + seconds
        while True:
            self.check_alive()
            try:
                with urllib.request.urlopen(self.url + path, timeout=5):
                    return
            except OSError:
                assert time.monotonic() < end, f"{path} not ready: {self._log.read_text()[-2000:]}"
                time.sleep(0.2)

    def get(self, path: str) -> Any:
        """Returns the JSON of a path."""
        with urllib.request.urlopen(self.url + path, timeout=30) as response:
            return json.load(response)

    def post(self, path: str, request: Mapping[str, Any]) -> Any:
        """Returns the JSON that answers a JSON request; raises urllib's HTTPError for a refusal."""
        content = json.dumps(request).encode()
        headers = {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(self.url + path, content, headers), timeout=60) as response:
            return json.load(response)

    def infer(self, model: str, name: str, values: np.ndarray | Sequence[bytes]) -> dict[str, np.ndarray]:
        """Sends one input and returns all outputs by name, both by the protocol's extension for binary tensors."""
        if isinstance(values, np.ndarray):
            datatype = next(name for name, dtype in _TYPES.items() if dtype == values.dtype)
            shape, content = list(values.shape), values.tobytes()
        else:
            datatype, shape = "BYTES", [len(values), 1]
            content = b"".join(struct.pack("<I", len(value)) + value for value in values)
        tensor = {"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": len(content)}}
        header = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        headers = {"Content-Type": "application/octet-stream", _HEADER: str(len(header))}
        request = urllib.request.Request(f"{self.url}/v2/models/{model}/infer", header + content, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                answer, size = response.read(), int(response.headers[_HEADER])
        except urllib.error.HTTPError:
            raise
        except OSError:
            self.check_alive()
            raise
        outputs, start = {}, size
        for output in json.loads(answer[:size])["outputs"]:
            dtype, count = _TYPES[output["datatype"]], math.prod(output["shape"])
            outputs[output["name"]] = np.frombuffer(answer, dtype, count, start).reshape(output["shape"])
            start += output["parameters"]["binary_data_size"]
        return outputs


@contextmanager
def serve(command: Sequence[object], port: int, log: Path, env: Mapping[str, str]) -> Iterator[Server]:
    """Starts a server and ends it by SIGTERM, which lets it remove its shared memory."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [str(word) for word in command], stdout=stream, stderr=subprocess.STDOUT, env=dict(env), cwd=log.parent
        )
    try:
        yield Server(process, port, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
