"""From a model directory to a report: scores with intervals, curves, what the model was sure and wrong about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tensorflow as tf
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import ConfigError, DataError, ImageError
from probrt.runtime.images.decode import SUFFIXES, read_image
from probrt.trainer import data, store
from probrt.trainer.config.config import Config
from probrt.trainer.config.settings import DataSettings
from probrt.trainer.data import Examples
from probrt.trainer.data.examples import Dataset
from probrt.trainer.evaluate.answers import Answers, answers
from probrt.trainer.evaluate.measures import Measured, measured, of_example, risk_curve
from probrt.trainer.evaluate.scores import bootstrap, false_positive_rate
from probrt.trainer.extensions import convert_record
from probrt.trainer.heads import AnyHead
from probrt.trainer.heads.categorical import ClassHead
from probrt.trainer.model import Model
from probrt.trainer.store import StoredModel

QUANTITIES = ("total", "aleatoric", "epistemic")
RISKS = (0.005, 0.01, 0.02, 0.05, 0.1)
_SURE_AND_WRONG = 12
_SEED = 0

Interval = tuple[float, float, float]


class EvaluationSource(Struct, frozen=True):
    """What `data.read` needs of a model."""

    data: DataSettings
    input: Input
    heads: list[AnyHead]
    seed: int


class Odd(Struct, frozen=True, kw_only=True):
    """An example that the model was sure and wrong about: `row` in the split, what was true, what it said."""

    row: int
    file: str
    truth: str
    said: str
    uncertainty: float
    loss: float


class HeadReport(Struct, frozen=True, kw_only=True):
    """One head: scores with 95 % bootstrap intervals (value, low, high), curves for charts.

    risk: (coverage, risk, threshold) points, risk being `loss`. review: of each risk, the largest total
    uncertainty at or below which the split's risk stays within it, and the share of examples that is; null if none.
    ood: AUROC and FPR95 by each quantity. histograms: of each quantity, edges and the counts of both sets.
    """

    name: str
    likelihood: str
    loss: str
    scores: dict[str, Interval]
    risk: list[tuple[float, float, float]]
    review: dict[str, tuple[float, float] | None]
    reliability: list[list[float]] = []
    pit: list[int] = []
    ood: dict[str, Interval] = {}
    histograms: dict[str, dict[str, list[float]]] = {}
    wrong: list[Odd] = []


class Report(Struct, frozen=True, kw_only=True):
    """A whole evaluation; `notes` say what limits it."""

    model: str
    split: str
    examples: int
    draws: int
    ood_images: int = 0
    data_digest: str
    notes: list[str]
    heads: list[HeadReport]


def evaluate(
    folder: Path, other: Path | None, ood: Path | None, draws: int, resamples: int
) -> tuple[Report, Examples, Model]:
    """The report of a model directory on its own test split, or on the folder `other`; and what it was made from."""
    model, kept = store.load_model(folder)
    read, split, notes = _examples(folder, kept, other)
    examples = read.splits[split]
    found = answers(model, examples, _SEED, draws)
    outside: dict[str, Answers] = {}
    images = None
    if ood is not None:
        images, skipped = _images(ood, model.input)
        if skipped:
            notes.append(f"{len(skipped)} files of {ood} cannot be read, such as {skipped[0]}")
        outside = answers(model, images, _SEED, draws, targets=False)
    reports = [
        _head(model, head, found[head.name], examples, outside.get(head.name), resamples) for head in model.heads
    ]
    report = Report(
        model=model.name,
        split=split,
        examples=len(examples),
        draws=draws,
        ood_images=len(images) if images else 0,
        data_digest=read.digest,
        notes=notes,
        heads=[one for one in reports if one is not None],
    )
    return report, examples, model


def _examples(folder: Path, kept: StoredModel, other: Path | None) -> tuple[Dataset, str, list[str]]:
    """The data, the split to score, and what a reader has to know about it."""
    settings, seed = DataSettings(folder="."), 0
    if "config" in kept.provenance:
        config = convert_record(kept.provenance["config"], Config)
        settings, seed = config.data, config.seed
    source = EvaluationSource(settings, kept.input, kept.heads, seed)
    digest = kept.provenance.get("data_digest")
    if other is not None:
        read = data.folder_of(source, other)
        if read.digest != digest:
            return read, "test", []
        where = other
    elif "data" in kept.provenance:
        where = (folder / kept.provenance["data"]).resolve()
    else:
        raise ConfigError(f"{folder}: does not say where its data are; name a folder with --data")
    here = msgspec.structs.replace(source, data=msgspec.structs.replace(settings, folder="."))
    read = data.read(here, where)
    notes = [*read.notes]
    if read.digest != digest:
        notes.append("the data have changed since training: their digest is another; examples may have been trained on")
    if "test" in read.splits:
        return read, "test", notes
    return read, "validation", [*notes, "no test split: the scores are of the split that calibration was fitted on"]


def _images(folder: Path, input: Input) -> tuple[Examples, list[str]]:
    """All images below a folder that the model can take, and the files that it cannot."""
    files = sorted(one for one in folder.rglob("*") if one.is_file() and one.name.lower().endswith(tuple(SUFFIXES)))
    read, skipped = {}, []
    for file in files:
        try:
            read[str(file.relative_to(folder))] = read_image(file, input)
        except ImageError as error:
            skipped.append(f"{file.relative_to(folder)} ({error})")
    shapes = {image.shape for image in read.values()}
    if len(shapes) != 1:
        raise DataError(f"{folder}: {'images of several sizes' if shapes else 'no image that the model can take'}")
    return Examples(tuple(read), np.stack(list(read.values())), {}), skipped


def _head(
    model: Model, head: AnyHead, said: Answers, examples: Examples, outside: Answers | None, resamples: int
) -> HeadReport | None:
    """One head's report on the examples that have a target; None if none has."""
    target = examples.targets[head.name]
    known = head.known(tf.convert_to_tensor(target)).numpy()
    rows = np.flatnonzero(known.reshape(len(known), -1).any(axis=1))
    if not len(rows):
        return None
    chosen = Answers(**{name: _taken(getattr(said, name), rows) for name in Answers.__dataclass_fields__})
    calibration = next((one for one in model.calibration if one.head == head.name), None)
    found = measured(head, chosen, target[rows], calibration)
    report: dict[str, Any] = {
        name: bootstrap(score, len(rows), _SEED, resamples) for name, score in found.scores.items()
    }
    curve = risk_curve(found)
    review = {}
    for risk in RISKS:
        within = [(threshold, kept) for kept, one, threshold in curve if one <= risk]
        review[f"{risk:g}"] = max(within) if within else None
    ood, histograms = _outside(said, outside, resamples) if outside else ({}, {})
    return HeadReport(
        name=head.name,
        likelihood=str(head.__struct_config__.tag),
        loss=found.loss_name,
        scores=report,
        risk=curve,
        review=review,
        ood=ood,
        histograms=histograms,
        wrong=_sure_and_wrong(head, chosen, found, target, rows, examples),
        **found.curves,
    )


def _taken(values: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if values is None else values[rows]


def _outside(said: Answers, outside: Answers, resamples: int) -> tuple[dict[str, Interval], dict[str, Any]]:
    """How well each uncertainty tells the other folder's images from the split's."""
    from sklearn.metrics import roc_auc_score

    scores, histograms = {}, {}
    for name in QUANTITIES:
        inner, outer = of_example(getattr(said, name)), of_example(getattr(outside, name))
        values, other = np.concatenate([inner, outer]), np.repeat([0, 1], [len(inner), len(outer)])

        def auroc(rows: np.ndarray, values=values, other=other) -> float:
            return float(roc_auc_score(other[rows], values[rows])) if len(set(other[rows])) == 2 else np.nan

        def fpr(rows: np.ndarray, values=values, other=other) -> float:
            chosen, kind = values[rows], other[rows]
            return false_positive_rate(chosen[kind == 0], chosen[kind == 1]) if len(set(kind)) == 2 else np.nan

        scores[f"AUROC by {name}"] = bootstrap(auroc, len(values), _SEED, resamples)
        scores[f"FPR95 by {name}"] = bootstrap(fpr, len(values), _SEED, resamples)
        edges = np.histogram_bin_edges(values, 30)
        counts = [np.histogram(part, edges)[0].astype(float).tolist() for part in (inner, outer)]
        histograms[name] = {"edges": edges.tolist(), "inside": counts[0], "outside": counts[1]}
    return scores, histograms


def _sure_and_wrong(
    head: AnyHead, said: Answers, found: Measured, target: np.ndarray, rows: np.ndarray, examples: Examples
) -> list[Odd]:
    """The most certain of the wrong; of real values, those farthest from the truth in predicted deviations."""
    if head.combine == "entropy":
        order = [i for i in np.argsort(found.uncertainty, kind="stable") if found.loss[i] > 0.5]
    else:
        order = list(np.argsort(-found.loss / np.sqrt(np.maximum(found.uncertainty, 1e-30)), kind="stable"))
    odd = []
    for place in order[:_SURE_AND_WRONG]:
        row = int(rows[place])
        if head.per_position:
            truth = answer = ""
        elif isinstance(head, ClassHead):
            best = int(said.mean[place].argmax())
            truth, answer = head.labels[target[row]], f"{head.labels[best]} ({said.mean[place][best]:.3f})"
        else:
            truth, answer = (", ".join(f"{value:.4g}" for value in one) for one in (target[row], said.mean[place]))
        odd.append(
            Odd(row=row, file=examples.files[row], truth=truth, said=answer,
                uncertainty=float(found.uncertainty[place]), loss=float(found.loss[place]))
        )  # fmt: skip
    return odd


def show(report: Report, console: Console) -> None:
    """The report as a table for a terminal."""
    console.print(f"{report.model}: {report.examples} examples of the {report.split} split, {report.draws} draws")
    for note in report.notes:
        console.print(f"note: {note}", soft_wrap=True, markup=False)
    for head in report.heads:
        table = Table(title=f"{head.name} ({head.likelihood})", title_justify="left")
        table.add_column("score")
        table.add_column("value", justify="right")
        table.add_column("95 % interval", justify="right")
        for name, (value, low, high) in {**head.scores, **head.ood}.items():
            table.add_row(name, f"{value:.4f}", f"{low:.4f} to {high:.4f}")
        console.print(table)
