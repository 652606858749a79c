"""A model card in the format of the Hugging Face Hub: a block of metadata in YAML, then the card in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from probrt.exporter.yaml_text import format_yaml
from probrt.runtime.bundle.manifest import HeadRecord, Manifest
from probrt.runtime.errors import UsageError
from probrt.trainer.store import CARD

EVALUATION = "evaluation.json"
# The Hub's names of tasks, by the kind of a head and whether it answers per position.
_TASKS = {
    ("class", False): "image-classification",
    ("binary", False): "image-classification",
    ("real", False): "image-regression",
    ("class", True): "image-segmentation",
    ("binary", True): "image-segmentation",
    ("real", True): "image-to-image",
}
# The Hub's names of metrics; others go by our own names.
_METRICS = {"accuracy": "accuracy", "IoU": "mean_iou", "MAE": "mae", "RMSE": "rmse", "Brier": "brier_score"}


class HeadScores(msgspec.Struct, frozen=True):
    """The scores of a head, each a value and the ends of its interval, which may be missing."""

    name: str
    scores: dict[str, tuple[float | None, float | None, float | None]]


class Evaluation(msgspec.Struct, frozen=True):
    """What a card takes from `evaluation.json`."""

    split: str
    examples: int
    draws: int
    heads: list[HeadScores]


def make_hub_card(manifest: Manifest, model: Path) -> str:
    """Returns the card of a bundle.

    model: the model directory it was exported from. Its `evaluation.json` gives the figures, if `probrt evaluate` has
    written one; without it those at the posterior mean stand in their place. Its `card.md` is the text. Raises
    UsageError for a damaged evaluation.
    """
    report = _read_report(model / EVALUATION)
    metadata: dict[str, Any] = {
        "library_name": "probrt",
        "tags": ["uncertainty", "bayesian", "calibration", "conformal-prediction"],
    }
    task = find_task(manifest.heads)
    if task is not None:
        metadata["pipeline_tag"] = task
    results = _list_reported(manifest, report) if report else _list_recorded(manifest)
    if results:
        metadata["model-index"] = [{"name": manifest.model.name, "results": results}]
    card = model / CARD
    text = card.read_text(encoding="utf-8") if card.is_file() else f"# {manifest.model.name}\n"
    return f"---\n{format_yaml(metadata)}---\n\n{text.rstrip()}\n\n{_describe_use(manifest)}{_describe_scores(report)}"


def find_task(heads: list[HeadRecord]) -> str | None:
    """Returns the Hub's task of the first head that has one: classes and masks, no plain numbers."""
    tasks = [_TASKS[head.kind, head.per_position] for head in heads if head.kind != "real"]
    return tasks[0] if tasks else None


def _read_report(path: Path) -> Evaluation | None:
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Evaluation)
    except msgspec.MsgspecError as error:
        raise UsageError(f"{path}: not readable as an evaluation ({error}); run `probrt evaluate` again") from None


def _list_reported(manifest: Manifest, report: Evaluation) -> list[dict[str, Any]]:
    """One result per head, from an evaluation."""
    return [
        _make_result(manifest, head.name, report.split, {name: value for name, (value, _, _) in head.scores.items()})
        for head in report.heads
        if head.name in {record.name for record in manifest.heads}
    ]


def _list_recorded(manifest: Manifest) -> list[dict[str, Any]]:
    """One result per head from the figures that training has recorded, of the last split: test, else validation."""
    metrics = manifest.provenance.training.get("metrics")
    if not isinstance(metrics, Mapping) or not metrics:
        return []
    split = list(metrics)[-1]
    return [
        _make_result(manifest, head.name, split, {"score": metrics[split][head.name]})
        for head in manifest.heads
        if isinstance(metrics[split].get(head.name), (int, float))
    ]


def _make_result(manifest: Manifest, head: str, split: str, scores: Mapping[str, float | None]) -> dict[str, Any]:
    record = manifest.head(head)
    data = str(manifest.provenance.training.get("data_digest") or manifest.model.name)
    return {
        "task": {"type": _TASKS[record.kind, record.per_position], "name": head},
        "dataset": {"name": f"{manifest.model.name}, {head}", "type": data, "split": split},
        "metrics": [
            {"type": _METRICS.get(name, name.lower().replace(" ", "_")), "name": f"{head} {name}", "value": value}
            for name, value in scores.items()
            if value is not None and math.isfinite(value)
        ],
    }


def _describe_use(manifest: Manifest) -> str:
    return (
        "## How to use it\n\n"
        "```python\nimport mlflow, pandas\n\n"
        'model = mlflow.pyfunc.load_model(".")\n'
        'table = pandas.DataFrame({"image": [open("image.png", "rb").read()]})\n'
        "model.predict(table)\n```\n\n"
        f"`probrt predict --bundle bundle images/` does the same; the bundle is {manifest.model.name} version "
        f"{manifest.model.version}.\n"
    )


def _describe_scores(report: Evaluation | None) -> str:
    if report is None:
        return ""
    lines = [
        "",
        "## Evaluation",
        "",
        f"{report.examples} examples of the {report.split} split, {report.draws} draws; 95 % bootstrap intervals.",
        "",
        "| head | score | value | interval |",
        "|---|---|---|---|",
    ]
    for head in report.heads:
        for name, (value, low, high) in head.scores.items():
            figure = "" if value is None else f"{value:.4f}"
            ends = "" if low is None or high is None else f"{low:.4f} to {high:.4f}"
            lines.append(f"| {head.name} | {name} | {figure} | {ends} |")
    return "\n".join(lines) + "\n"
