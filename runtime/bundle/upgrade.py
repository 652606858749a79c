"""Rewrites the decoded JSON of an older manifest of format 1 into today's fields.

Two fields came after the first bundles of this format: the `kind` of a head, and the separate fields of a parity
row, which was one string `output` before. Values of unexpected types stay as they are: the strict conversion that
follows names what is wrong with them.
"""

import re
from typing import Any

_OUTPUT = re.compile(r"(?:(?P<signature>[a-z_]+):)?(?P<head>[a-z][a-z0-9_]*)\.(?P<quantity>[a-z][a-z0-9_]*)")
_SCORE = re.compile(r"(?P<head>[a-z][a-z0-9_]*) (?P<metric>[^\n]+)")


def upgrade_manifest(raw: Any) -> Any:
    """Returns the decoded JSON of a manifest of format 1 with the fields that older bundles lack."""
    if not isinstance(raw, dict):
        return raw
    upgraded = dict(raw)
    for key, upgrade_record in (("heads", _upgrade_head), ("parity", _upgrade_parity)):
        records = raw.get(key)
        if isinstance(records, list):
            upgraded[key] = [upgrade_record(record) if isinstance(record, dict) else record for record in records]
    return upgraded


def _upgrade_head(head: dict[str, Any]) -> dict[str, Any]:
    """Derives `kind` from `combine` and from the shapes of the outputs."""
    if "kind" in head:
        return head
    if head.get("combine") == "variance":
        return head | {"kind": "real"}
    outputs = head.get("outputs")
    mean, aleatoric = (outputs.get(name) if isinstance(outputs, dict) else None for name in ("mean", "aleatoric"))
    has_classes = isinstance(mean, list) and isinstance(aleatoric, list) and len(mean) > len(aleatoric)
    return head | {"kind": "class" if has_classes else "binary"}


def _upgrade_parity(row: dict[str, Any]) -> dict[str, Any]:
    """Splits `output`: `signature:head.quantity`, `head.quantity`, or for a metric of the task `head metric`."""
    output = row.get("output")
    match = (_OUTPUT.fullmatch(output) or _SCORE.fullmatch(output)) if isinstance(output, str) else None
    if match is None:
        return row
    others = {key: value for key, value in row.items() if key != "output"}
    return {name: value for name, value in match.groupdict().items() if value is not None} | others
