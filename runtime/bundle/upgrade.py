"""Rewrites the decoded JSON of an older manifest of format 1 into today's fields.

Three fields came after the first bundles of this format: the `kind` of a head, the separate fields of a parity
row, which was one string `output` before, and what the draws of a bank are worth. Values of unexpected types stay as
they are: the strict conversion that follows names what is wrong with them.
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
    if isinstance(raw.get("posterior"), dict):
        upgraded["posterior"] = _upgrade_posterior(raw["posterior"])
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


def _upgrade_posterior(posterior: dict[str, Any]) -> dict[str, Any]:
    """Derives `effective` of a chosen bank from its errors and those of independent draws.

    n draws whose error is r times that of independent ones are worth n / r². The pool, which they are compared with,
    is itself off the truth by the error of its size.
    """
    selection = posterior.get("selection")
    if "effective" in posterior or not isinstance(selection, dict) or selection.get("kept") is not True:
        return posterior
    try:
        pool = float(selection["pool"])
        by_draws: dict[int, dict[str, dict[str, Any]]] = {}
        for error in selection["errors"]:
            by_draws.setdefault(error["draws"], {})[error["images"]] = error
        effective = []
        for draws, sets in by_draws.items():
            errors = [sets["training"], sets["shifted"]]
            ratios = [
                (error[name] / error[f"independent_{name}"]) ** 2 for error in errors for name in ("mean", "spread")
            ]
            effective.append(
                {
                    "precision": "float32",
                    "draws": draws,
                    "mean": [error["mean"] for error in errors],
                    "spread": [error["spread"] for error in errors],
                    "effective": float(f"{1 / (max(ratios) / draws + 1 / pool):.3g}"),
                }
            )
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError, OverflowError):
        return posterior
    return posterior | {"effective": effective}
