"""What an export is asked for, and what that means for one model: decided before anything is computed or written."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probrt.exporter.bundle_writer import estimate_bytes
from probrt.exporter.ensemble import make_ensemble
from probrt.exporter.exportable import Exportable
from probrt.exporter.formats import BY_PRECISION, FORMATS, VARIANTS, GraphSpec, select_graphs
from probrt.exporter.records import make_head_records
from probrt.runtime.bundle.manifest import MODEL_NAME, Format, Precision, Variant
from probrt.runtime.bundle.signing import check_signing_key
from probrt.runtime.errors import UsageError
from probrt.trainer import store
from probrt.trainer.model import Model

DRAWS = 32
# More bytes than this are written only if the formats are named.
_MAX_BYTES = 1e9


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What to export.

    draws: in the bank, a multiple of CHUNK; None is DRAWS, or one per member of an ensemble without random weights.
    seed: the bundle's own. version: None is the next.
    formats: None is all of them, unless that comes to more than a gigabyte.
    select: whether to choose the bank's draws; otherwise they are 0, 1, 2, …
    tune: whether to tune those that were chosen.
    auxiliary: whether to keep the auxiliary heads.
    key: the private key to sign the bundle with.
    members: directories of further models that make an ensemble with the first.
    name: the bundle's; None is the (first) model's.
    novelty_map: whether the graphs give the novelty of each position too.
    """

    draws: int | None = None
    seed: int = 0
    version: int | None = None
    formats: tuple[Format, ...] | None = None
    precisions: tuple[Precision, ...] = ("float32",)
    variants: tuple[Variant, ...] = VARIANTS
    select: bool = True
    tune: bool = True
    auxiliary: bool = False
    key: Path | None = None
    members: tuple[Path, ...] = ()
    name: str | None = None
    novelty_map: bool = False


@dataclass(frozen=True, kw_only=True)
class ExportPlan:
    """What a request means for one model, decided before anything is computed or written.

    training: the manifest's provenance of the model. bytes: about how many will be written.
    """

    request: ExportRequest
    model: Exportable
    training: dict[str, Any]
    formats: tuple[Format, ...]
    graphs: list[GraphSpec]
    draws: int
    bytes: int

    @property
    def chooses_bank(self) -> bool:
        """Whether the draws of the bank are chosen; otherwise they are in plain order."""
        has_bank = "savedmodel" in self.formats or "draws" in self.request.variants
        return self.request.select and has_bank and self.model.max_draws is None

    @property
    def tunes_bank(self) -> bool:
        """Whether the draws of the bank are tuned, where they can be."""
        return self.request.tune and self.chooses_bank


def plan_export(folder: Path, request: ExportRequest) -> ExportPlan:
    """Loads the model and decides what to write; UsageError for what the model does not have, and for too much."""
    if request.key is not None:
        check_signing_key(request.key)
    model, training = _load_model(folder, request)
    draws = _count_draws(model, request)
    formats = request.formats or FORMATS
    graphs = select_graphs(formats, request.precisions, request.variants, available_variants(model))
    size = estimate_bytes(model, graphs, draws)
    if request.formats is None and size > _MAX_BYTES:
        raise UsageError(
            f"{folder}: about {size / 1e9:.1f} GB with {draws} draws in every format; "
            f"name those you need with --formats {','.join(FORMATS)}, or lower --draws"
        )
    return ExportPlan(
        request=request, model=model, training=training, formats=formats, graphs=graphs, draws=draws, bytes=size
    )


def available_variants(model: Exportable) -> tuple[Variant, ...]:
    """The variants that a model has; only random weights whose draws a graph can make have `sampled`."""
    if model.max_draws == 1:
        return ("mean",)
    return VARIANTS if model.draws_in_graph else ("mean", "draws")


def _load_model(folder: Path, request: ExportRequest) -> tuple[Exportable, dict[str, Any]]:
    """Loads the model, or the ensemble, and its provenance."""
    if request.name is not None and not re.fullmatch(MODEL_NAME, request.name):
        raise UsageError(
            f"--name {request.name!r}: letters, digits, '_', '-' and '.', beginning with a letter or digit"
        )
    folders = (folder, *request.members)
    models, stored = zip(*(store.load_model(member) for member in folders), strict=True)
    if not request.auxiliary:
        models = tuple(model.without_auxiliary() for model in models)
    if request.novelty_map:
        _check_map(folder, models[0])
    else:
        models = tuple(model.without_novelty_map() for model in models)
    if not request.members:
        return dataclasses.replace(models[0], name=request.name or models[0].name), stored[0].provenance
    coarse = [precision for precision in request.precisions if not BY_PRECISION[precision].whole_graph]
    if coarse:
        raise UsageError(f"--precisions {coarse[0]}: not for an ensemble; choose from float32, float16")
    ensemble = make_ensemble(request.name or "", folders, models, [make_head_records(model) for model in models])
    members = [
        {"name": member.name, "calibration": member.calibration, "provenance": member.provenance} for member in stored
    ]
    return ensemble, {"members": members}


def _check_map(folder: Path, model: Model) -> None:
    """Raises UsageError if the model has no novelty of positions."""
    if model.novelty is not None and model.novelty.map is not None:
        return
    if not any(len(model.positions(head)) == 2 for head in model.heads):
        reason = "has no two-dimensional head per position"
    elif model.novelty is None:
        reason = "has no novelty; `probrt calibrate` adds it, with 100 images or more"
    else:
        reason = "was fitted without one; train it again"
    raise UsageError(f"--novelty-map: {folder} has no novelty of positions: it {reason}, or leave the option out")


def _count_draws(model: Exportable, request: ExportRequest) -> int:
    """Returns how many draws the bank has; UsageError for a number that the members of an ensemble do not have."""
    count = model.max_draws
    if count is None or count == 1:
        return request.draws or DRAWS
    if request.draws not in (None, count):
        raise UsageError(
            f"--draws {request.draws}: an ensemble without random weights has {count} draws, one per member; "
            "leave --draws out"
        )
    return count
