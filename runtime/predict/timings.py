"""What `probrt bench --save` has measured on this machine, kept in the user's cache directory, by bundle.

A file per bundle and machine holds images per second by engine, precision and variant. The choice of an engine goes by
it. A file that is absent or cannot be read is as if nothing had been measured.
"""

import os
import platform
from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.passed_files import cache_folder, make_key
from probrt.runtime.errors import MissingError
from probrt.runtime.files import write_atomic

_MAX_BYTES = 1 << 20


class Timing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many images per second a way to answer makes, at its best batch size."""

    engine: str
    precision: str
    variant: str
    images_per_second: float


def save_timings(bundle: Bundle, timings: Sequence[Timing]) -> Path:
    """Keeps the timings of a bundle, with those of other ways to answer that were kept before; returns the file.

    Raises MissingError if there is no home directory, and OSError if the file cannot be written.
    """
    path = _find_file(bundle)
    if path is None:
        raise MissingError("--save: no home directory; set XDG_CACHE_HOME to a folder of your own")
    kept = {(timing.engine, timing.precision, timing.variant): timing for timing in (*read_timings(bundle), *timings)}
    path.parent.parent.parent.mkdir(parents=True, exist_ok=True)
    path.parent.parent.mkdir(mode=0o700, exist_ok=True)  # passed_files.py asks for a private one
    path.parent.mkdir(mode=0o700, exist_ok=True)
    write_atomic(path, msgspec.json.format(msgspec.json.encode(list(kept.values())), indent=1) + b"\n")
    return path


def read_timings(bundle: Bundle) -> list[Timing]:
    """Returns what was measured for a bundle on this machine; empty if nothing was."""
    path = _find_file(bundle)
    if path is None:
        return []
    try:
        with path.open("rb") as stream:
            return msgspec.json.decode(stream.read(_MAX_BYTES), type=list[Timing])
    except (OSError, msgspec.MsgspecError):
        return []


def rank_engines(bundle: Bundle, precision: str, variants: Collection[str]) -> list[str]:
    """Returns the names of the engines that were measured for any of these variants, the fastest first."""
    rates: dict[str, float] = {}
    for timing in read_timings(bundle):
        if timing.precision == precision and timing.variant in variants:
            rates[timing.engine] = max(timing.images_per_second, rates.get(timing.engine, 0.0))
    return sorted(rates, key=lambda engine: -rates[engine])


def _find_file(bundle: Bundle) -> Path | None:
    """Returns the file for this bundle's bytes on this machine; home directories may be shared between machines."""
    folder = cache_folder()
    if folder is None:
        return None
    machine = (platform.system(), platform.machine(), _read_processor(), os.cpu_count())
    return folder / "timings" / f"{make_key(bundle.manifest.files, *machine)}.json"


def _read_processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
