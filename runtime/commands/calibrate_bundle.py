"""Renews the thresholds and risk curves of a bundle from stored rows, as a new version; needs no ML framework."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from probrt.runtime.bundle import signing
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import NAME, SIGNATURE, Calibration, HeadRecord, Manifest
from probrt.runtime.bundle.manifest_file import encode
from probrt.runtime.bundle.publish import stage_version
from probrt.runtime.calibration.renew import LabelledAnswers, measure_coverage, renew_calibration
from probrt.runtime.commands.true_labels import read_true_labels
from probrt.runtime.errors import InputError, UsageError
from probrt.runtime.rows.coverage import COVERAGE
from probrt.runtime.rows.labelled import LabelledRow, collect_answers, list_columns
from probrt.runtime.rows.readers import read_rows


@dataclass(frozen=True)
class RenewedHead:
    """The calibration of a head before and after, and the answers that it was fitted to."""

    head: HeadRecord
    before: Calibration
    after: Calibration
    answers: LabelledAnswers


def calibrate_bundle(folder: Path, predictions: Path, labels: Path, key: Path | None) -> int:
    """Publishes the next version of a bundle, with thresholds and risk curves of stored rows; prints both.

    The graphs stay as they are, with their temperatures and novelty. Raises UsageError for a signed bundle without a
    key, for labels that name none of the rows or too few for thresholds, and for rows of another bundle.
    """
    if key is not None:
        signing.check_signing_key(key)
    bundle = Bundle.open(folder)
    if key is None and (bundle.path / SIGNATURE).exists():
        raise UsageError(f"{bundle.path}: is signed; give the private key with --sign for the new version")
    rows = _read_labelled_rows(bundle, predictions, labels)
    heads = _renew_heads(bundle.manifest, rows)
    if not heads:
        columns = ", ".join(column for head in bundle.manifest.heads for column in list_columns(head))
        raise UsageError(f"{labels}: no label of a pooled head; its columns are {columns}")
    for head in heads:
        if _has_thresholds(head.before) and not _has_thresholds(head.after):
            raise UsageError(
                f"{labels}: {len(head.answers)} labelled rows of {head.head.name} are too few for its thresholds at "
                f"{COVERAGE:.0%}, which the bundle would lose; label more images"
            )
    digests = {path.name: _digest_file(path) for path in (predictions, labels)}
    version = _publish_version(bundle, heads, digests, key)
    console = Console(highlight=False)
    console.print(_make_table(heads))
    maps = [head.name for head in bundle.manifest.heads if head.per_position]
    if maps:
        console.print(f"unchanged, for rows hold no maps: {', '.join(maps)}")
    console.print(f"{version}: thresholds and risk curves of {len(rows)} labelled rows", soft_wrap=True)
    return 0


def _read_labelled_rows(bundle: Bundle, predictions: Path, labels: Path) -> list[LabelledRow]:
    """Reads the good rows that have labels."""
    truth = read_true_labels(labels)
    rows: list[LabelledRow] = []
    first_file = None
    for row in read_rows(predictions):
        first_file = first_file or row["file"]
        if row["status"] != "ok":
            continue
        if row["bundle"] != bundle.label:
            raise UsageError(f"{predictions}: rows of {row['bundle']}, not of {bundle.label}; predict with this bundle")
        cells = truth.of_file(row["file"])
        if cells:
            rows.append((row, cells))
    if first_file is None:
        raise InputError(f"{predictions}: holds no rows")
    if not rows:
        raise UsageError(
            f"{labels}: none of its names ({truth.first_name}) is the end of a good row's file name ({first_file})"
        )
    return rows


def _renew_heads(manifest: Manifest, rows: Sequence[LabelledRow]) -> list[RenewedHead]:
    """Renews the calibration of each pooled head that has labels."""
    records = {record.head: record for record in manifest.calibration}
    heads = []
    for head in manifest.heads:
        if head.per_position:
            continue
        answers = collect_answers(head, rows)
        if len(answers):
            before = records.get(head.name, Calibration(head=head.name))
            heads.append(RenewedHead(head, before, renew_calibration(head, before, answers), answers))
    return heads


def _has_thresholds(calibration: Calibration) -> bool:
    return any(record.coverage == COVERAGE for record in calibration.conformal)


def _publish_version(bundle: Bundle, heads: Sequence[RenewedHead], digests: dict[str, str], key: Path | None) -> Path:
    """Copies the bundle, checked, to the next version with the new calibration; returns its folder."""
    model = bundle.path.parent
    manifest = bundle.manifest
    renewed = {head.head.name: head.after for head in heads}
    kept = [record for record in manifest.calibration if record.head not in renewed]
    names = [head.name for head in manifest.heads]
    calibration = sorted([*kept, *renewed.values()], key=lambda record: names.index(record.head))
    provenance = _add_provenance(manifest, {"of_version": manifest.model.version, "sha256": digests})
    changed = msgspec.structs.replace(manifest, calibration=calibration, provenance=provenance)
    with stage_version(model) as stage:
        for file in manifest.listed:
            bundle.check(file)
            target = stage.folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.path / file.path, target)

        def complete(version: int) -> None:
            record = msgspec.structs.replace(manifest.model, version=version)
            (stage.folder / NAME).write_bytes(encode(msgspec.structs.replace(changed, model=record)))
            if key is not None:
                signing.sign(stage.folder, key)

        return stage.publish(complete)


def _add_provenance(manifest: Manifest, calibration: dict[str, Any]) -> Any:
    export = manifest.provenance.export | {"calibration": calibration}
    return msgspec.structs.replace(manifest.provenance, export=export)


def _digest_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _make_table(heads: Sequence[RenewedHead]) -> Table:
    """A line for each head and method: the threshold at 90 % before and after, and what the old one held here."""
    table = Table(title=f"thresholds at {COVERAGE:.0%}", title_justify="left")
    for column in ("head", "method", "images", "before", "held here", "after"):
        table.add_column(column, justify="left" if column in ("head", "method") else "right")
    for renewed in heads:
        before, after = (
            {record.method: record for record in calibration.conformal if record.coverage == COVERAGE}
            for calibration in (renewed.before, renewed.after)
        )
        for method in dict.fromkeys([*before, *after]):
            held = measure_coverage(renewed.head, before[method], renewed.answers) if method in before else None
            table.add_row(
                renewed.head.name,
                method,
                str(len(renewed.answers)),
                f"{before[method].threshold:.4g}" if method in before else "",
                "" if held is None else f"{held:.1%}",
                f"{after[method].threshold:.4g}" if method in after else "too few images",
            )
    return table
