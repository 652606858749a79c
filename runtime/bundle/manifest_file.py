"""Reads and writes `probrt.json`."""

import hashlib
import json
import re
from typing import Any

import msgspec
from msgspec import Struct

from probrt.runtime.bundle.manifest import FORMAT, MAX_BYTES, NAME, Manifest
from probrt.runtime.bundle.manifest_checks import check_manifest
from probrt.runtime.bundle.upgrade import upgrade_manifest
from probrt.runtime.errors import BundleError

# No manifest nests deeper; Python's own limit would be a traceback for whoever reads the provenance.
MAX_DEPTH = 64
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"')
# Stands for the manifest's own digest while that is computed.
_NO_DIGEST = "0" * 64


class _Lenient(Struct):
    format: int
    probrt: str = "?"


def decode(data: bytes, where: str) -> Manifest:
    """Decodes a manifest; BundleError says what is wrong, and names the file by `where`."""
    if len(data) > MAX_BYTES:
        raise BundleError(f"{where}: {len(data)} bytes, a manifest has at most {MAX_BYTES}")
    try:
        lenient = msgspec.json.decode(data, type=_Lenient)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{where}: not a probrt manifest ({error})") from None
    if lenient.format != FORMAT:
        raise BundleError(
            f"{where}: bundle format {lenient.format} was written by probrt {lenient.probrt}; this one reads "
            f"format {FORMAT}; install probrt {lenient.probrt} or newer"
        )
    try:
        manifest = msgspec.convert(upgrade_manifest(_read_json(data)), Manifest)
        _check_digest(data, manifest)
        check_manifest(manifest)
    except (msgspec.MsgspecError, ValueError, RecursionError, BundleError) as error:
        raise BundleError(f"{where}: {error}") from None
    return manifest


def encode(manifest: Manifest) -> bytes:
    """Encodes a manifest as readable JSON, the same bytes for the same content; `format` comes first.

    Fills in the manifest's own digest.
    """
    try:
        check_manifest(manifest)
    except BundleError as error:
        raise BundleError(f"{NAME}: {error}") from None
    unsigned = msgspec.structs.replace(manifest, sha256=_NO_DIGEST)
    data = msgspec.json.format(msgspec.json.encode(unsigned), indent=1) + b"\n"
    # The first such digits are its own: the field comes before any other text but two numbers.
    data = data.replace(_NO_DIGEST.encode(), hashlib.sha256(data).hexdigest().encode(), 1)
    if len(data) > MAX_BYTES:
        raise BundleError(f"{NAME}: {len(data)} bytes, a manifest has at most {MAX_BYTES}")
    return data


def json_schema() -> dict[str, Any]:
    """Returns the JSON Schema of a manifest, the content of docs/manifest.schema.json."""
    return msgspec.json.schema(Manifest)


def _check_digest(data: bytes, manifest: Manifest) -> None:
    """Raises BundleError unless the manifest has the bytes that its own digest was computed from, if it has one."""
    if manifest.sha256 is None:
        return
    without = data.replace(manifest.sha256.encode(), _NO_DIGEST.encode(), 1)
    if hashlib.sha256(without).hexdigest() != manifest.sha256:
        raise BundleError("was altered after export (its digest differs from its own); export or copy the bundle again")


def _read_json(data: bytes) -> Any:
    """Returns the decoded JSON; BundleError for a key that is given twice and for nesting without end."""
    depth = deepest = 0
    for bracket in re.findall(rb"[\[\]{}]", _STRINGS.sub(b"", data)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise BundleError(f"nested {deepest} deep, a manifest at most {MAX_DEPTH}")
    return json.loads(data, object_pairs_hook=_refuse_repeated_keys)


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for key, value in pairs:
        if key in record:
            raise BundleError(f"the key {key[:80]!r} is given twice")
        record[key] = value
    return record
