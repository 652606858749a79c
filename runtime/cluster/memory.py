"""Whether this machine has the memory that a local Ray needs; without it Ray aborts the process and says nothing."""

from __future__ import annotations

import re
from pathlib import Path

from probrt.runtime.errors import Fault

# What the processes of a local Ray take, and the address space of the one that starts it.
FREE_BYTES = 1 << 30
ADDRESS_BYTES = 3 << 30
_MEMINFO = Path("/proc/meminfo")


def check_memory() -> None:
    """Raises Fault if there is too little; where the system does not tell, it is assumed to be enough."""
    free, limit = _read_free_bytes(), _read_address_limit()
    if free is not None and free < FREE_BYTES:
        raise Fault(
            f"--ray local: a local Ray takes about {FREE_BYTES >> 20} MB, {free >> 20} MB are free; "
            "end other programs, or leave out --ray"
        )
    if limit is not None and limit < ADDRESS_BYTES:
        raise Fault(
            f"--ray local: this process may have {limit >> 20} MB of address space, Ray needs "
            f"{ADDRESS_BYTES >> 20} MB; raise the limit (ulimit -v), or leave out --ray"
        )


def _read_free_bytes() -> int | None:
    try:
        match = re.search(r"^MemAvailable:\s+(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(match.group(1)) << 10 if match else None


def _read_address_limit() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit
