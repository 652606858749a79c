"""A pool of workers in Ray: gives each a shard at a time, and gives the shard of a lost worker to another."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from probrt.runtime.cluster.memory import check_memory
from probrt.runtime.cluster.shards import Shard, ShardRecord
from probrt.runtime.cluster.worker import Job, ShardWorker
from probrt.runtime.errors import Fault, MissingError, ProbrtError, UsageError, one_line
from probrt.runtime.predict.predictor import cores

LOCAL = "local"
# How often a shard is given to a worker before the run ends: one image may be what kills them.
TRIES = 3
SECONDS_TO_CONNECT = 10.0
SECONDS_TO_WAIT = 30.0
_OBJECT_STORE_BYTES = 128 << 20


class RayWorker:
    """The actor: a worker whose faults come back as values, because Ray puts a traceback around exceptions."""

    def __init__(self, job: Job, files: Mapping[str, bytes]) -> None:
        with contextlib.suppress(OSError):  # elsewhere only absolute names and addresses lead to a file
            os.chdir(job.cwd)
        self._worker = ShardWorker(job, files)

    def predict(self, shard: Shard) -> ShardRecord | ProbrtError:
        try:
            return self._worker.predict(shard)
        except ProbrtError as error:
            return error


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A Ray that this process is connected to. cpus, gpus: of all its machines."""

    ray: Any
    cpus: int
    gpus: int


@contextlib.contextmanager
def connect(address: str, bundle_bytes: int, wanted_cpus: int) -> Iterator[Cluster]:
    """Connects to a Ray and lets go of it at the end; `local` starts one on this machine and stops it.

    bundle_bytes: the size of the bundle, which a local Ray has to hold. wanted_cpus: those that the user asks for; a
    local Ray counts at least the processors of this machine.
    Raises MissingError without Ray, UsageError for what is no address, Fault for a Ray that does not answer
    or has too little memory.
    """
    if address not in (LOCAL, "auto"):
        _check_address(address)
    try:
        # Ray reads these when it is imported: no messages of its own to anybody.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray
    except ImportError:
        raise MissingError("--ray needs Ray, not installed; pip install 'probrt[ray]'") from None
    if address not in (LOCAL, "auto"):
        _check_answers(address)
    if address == LOCAL:
        check_memory()
    handler = signal.getsignal(signal.SIGTERM)  # Ray puts its own in its place
    with tempfile.TemporaryDirectory(prefix="probrt-ray-", ignore_cleanup_errors=True) as scratch:
        options: dict[str, Any] = {"address": address}
        if address == LOCAL:
            options |= {
                "num_cpus": max(cores(), wanted_cpus),
                "object_store_memory": _OBJECT_STORE_BYTES + 2 * bundle_bytes,
                "include_dashboard": False,
                "_temp_dir": scratch,
            }
        try:
            ray.init(**options, log_to_driver=False, configure_logging=False)
            total = ray.cluster_resources()
        except Exception as error:  # Ray raises ConnectionError, RuntimeError, ValueError and others
            ray.shutdown()
            what = "a local Ray does not start" if address == LOCAL else f"no Ray to connect to at {address}"
            raise Fault(f"--ray {address}: {what}: {one_line(error)[:300]}") from None
        finally:
            if handler is not None:
                signal.signal(signal.SIGTERM, handler)
        try:
            yield Cluster(ray=ray, cpus=int(total.get("CPU", 0)), gpus=int(total.get("GPU", 0)))
        finally:
            ray.shutdown()


def _check_address(address: str) -> None:
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdigit()) or "/" in address:
        raise UsageError(f"--ray {address}: write local, auto, or the HOST:PORT of a Ray, e.g. --ray local imgs/")


def _check_answers(address: str) -> None:
    """Raises Fault for a machine that does not answer: Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_CONNECT).close()
    except (OSError, OverflowError) as error:
        raise Fault(
            f"--ray {address}: no Ray answers there: {one_line(error)}; start one with `ray start --head`, "
            "or write --ray local"
        ) from None


@dataclass(frozen=True, kw_only=True)
class PoolRequest:
    """What a pool computes.

    files: of the bundle, by their paths. workers: their number; None takes as many as the cluster holds.
    gpus: those of each worker. report: takes a line for the user.
    """

    job: Job
    files: Mapping[str, bytes]
    shards: Iterator[Shard]
    workers: int | None
    gpus: int
    report: Callable[[str], None]


@dataclass
class WorkerPool:
    """Workers in a Ray, each with one shard at a time."""

    cluster: Cluster
    request: PoolRequest
    lost: int = 0
    _again: list[Shard] = field(default_factory=list)
    _tries: dict[int, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many workers there may be; UsageError if the cluster has no room for one."""
        cluster, request = self.cluster, self.request
        threads, gpus = request.job.threads, request.gpus
        room = cluster.cpus // threads
        if gpus:
            room = min(room, cluster.gpus // gpus)
        if room < 1:
            needs = f"{threads} CPUs" + (f" and {gpus} GPU" if gpus else "")
            raise UsageError(
                f"--ray: a worker needs {needs}, the cluster has {cluster.cpus} and {cluster.gpus}; "
                "lower --threads, or choose another --device"
            )
        return min(request.workers or room, room)

    def run(self) -> Iterator[ShardRecord]:
        """Yields the record of each shard when it is finished.

        Raises the fault of a worker, and Fault for a shard whose workers die again and again.
        """
        ray, request, count = self.cluster.ray, self.request, self.count
        actor = ray.remote(RayWorker).options(num_cpus=request.job.threads, num_gpus=request.gpus, max_restarts=0)
        files = ray.put(dict(request.files))
        idle: list[Any] = []
        busy: dict[Any, tuple[Any, Shard]] = {}
        answered = False
        while True:
            while len(busy) < count and (shard := self._take()) is not None:
                worker = idle.pop() if idle else actor.remote(request.job, files)
                busy[worker.predict.remote(shard)] = (worker, shard)
            if not busy:
                return
            ready, _ = ray.wait(list(busy), timeout=SECONDS_TO_WAIT)
            ready, _ = ray.wait(list(busy), num_returns=len(busy), timeout=0)  # the first one alone, otherwise
            if not ready and not answered:
                free = int(ray.available_resources().get("CPU", 0))
                request.report(f"no worker has answered yet; the cluster has {free} of {self.cluster.cpus} CPUs free")
            for ref in ready:
                worker, shard = busy.pop(ref)
                answer = self._collect(ref, shard)
                if answer is not None:
                    answered = True
                    idle.append(worker)
                    yield answer

    def _take(self) -> Shard | None:
        return self._again.pop() if self._again else next(self.request.shards, None)

    def _collect(self, ref: Any, shard: Shard) -> ShardRecord | None:
        """Returns what a worker answers; None if the worker is lost and its shard waits for another."""
        ray = self.cluster.ray
        try:
            answer = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            raise Fault(f"--ray: {shard.file}: {one_line(error.cause or error)[:300]}") from error
        except ray.exceptions.RayError as error:  # the worker, its machine or the object is gone
            self.lost += 1
            self._tries[shard.index] = self._tries.get(shard.index, 0) + 1
            if self._tries[shard.index] >= TRIES:
                raise Fault(
                    f"--ray: {TRIES} workers died over {shard.file} (images {shard.first} to "
                    f"{shard.first + len(shard.names) - 1}): {type(error).__name__}; predict these images with "
                    "--isolate and without --ray to find the one, or go on with --resume"
                ) from error
            self._again.append(shard)
            self.request.report(f"lost a worker ({type(error).__name__}); {shard.file} is computed again")
            return None
        if isinstance(answer, ProbrtError):
            raise answer
        record: ShardRecord = answer
        return record
