"""The model card: what a model answers, what it was made from, how good it is, and the limits that its data show.

After Mitchell et al. (2019), "Model cards for model reporting". The card states only what is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from probrt.runtime.bundle.manifest import Calibration, Input
from probrt.runtime.calibration.conformal import list_coverages
from probrt.trainer.config.config import Config
from probrt.trainer.config.settings import FitSettings
from probrt.trainer.data.examples import Dataset
from probrt.trainer.data.summary import describe_targets
from probrt.trainer.heads import AnyHead
from probrt.trainer.model import Model

# Classes with fewer training examples than this are named among the limits.
_FEW_EXAMPLES = 30


def make_card(model: Model, config: Config, dataset: Dataset, provenance: Mapping[str, Any]) -> str:
    """Returns the card as Markdown. provenance: as in model.json."""
    quality = _describe_quality(model.heads, provenance["metrics"])
    making = _describe_fit(config.fit, config.seed, provenance)
    return _write_card(model, dataset, provenance, quality, making, grouped=bool(config.data.group))


def make_python_card(model: Model, dataset: Dataset, provenance: Mapping[str, Any]) -> str:
    """Returns the card of a `BayesianModel`, as Markdown. provenance: as in model.json."""
    quality = ["Not measured: no examples beside the training examples were given."]
    if provenance["metrics"]:
        quality = _describe_quality(model.heads, provenance["metrics"])
    making = [
        *_describe_tempering(provenance.get("kl_weight", 1)),
        "- fitted in Python, by Keras's `fit`",
        _describe_versions(provenance),
    ]
    return _write_card(model, dataset, provenance, quality, making, grouped=False)


def make_adopted_card(model: Model, dataset: Dataset, provenance: Mapping[str, Any], *, grouped: bool) -> str:
    """Returns the card of a model that `probrt adopt` made from a finished network, as Markdown.

    grouped: whether the data name groups.
    """
    before, after = provenance["scores"]["before"], provenance["scores"]["after"]
    quality = ["On the held-out split:", "", "| head | measure | before | after |", "|---|---|---|---|"]
    for head, scores in before.items():
        quality += [f"| {head} | {name} | {value:.4f} | {after[head][name]:.4f} |" for name, value in scores.items()]
    adopted = provenance["adopted"]
    making = [
        f"- adopted from the finished network {adopted['model']!r} by {adopted['method']}; pixel values: "
        f"{adopted['values']}",
        "- whether the network was trained on the held-out images above is not known here; if so, the scores flatter",
        _describe_versions(provenance),
    ]
    return _write_card(model, dataset, provenance, quality, making, grouped=grouped)


def _write_card(
    model: Model,
    dataset: Dataset,
    provenance: Mapping[str, Any],
    quality: list[str],
    making: list[str],
    *,
    grouped: bool,
) -> str:
    sections = {
        "What it answers": [_describe_head(head) for head in model.heads],
        "What it takes": [_describe_input(model.input)],
        "Data": _describe_data(model.heads, dataset),
        "Quality": quality,
        "Calibration": [f"- {describe_calibration(calibration)}" for calibration in model.calibration],
        "Novelty": [f"- {provenance['novelty']}"],
        "What it must not be used for": [f"- {limit}" for limit in list_limits(model.heads, dataset, grouped)],
        "How it was made": making,
    }
    return renew_sections(f"# {model.name}\n", sections)


def renew_sections(card: str, sections: Mapping[str, Sequence[str]]) -> str:
    """Returns the card with the lines of some sections replaced, by title; sections that it lacks come at its end."""
    lines = card.splitlines()
    for title, section in sections.items():
        heading = f"## {title}"
        start = lines.index(heading) if heading in lines else len(lines)
        end = next((row for row in range(start + 1, len(lines)) if lines[row].startswith("## ")), len(lines))
        before, after = lines[:start], lines[end:]
        gap = [""] if before and before[-1] else []
        lines = [*before, *gap, heading, "", *section, *([""] if after else []), *after]
    return "\n".join(lines) + "\n"


def describe_recalibration(calibrations: Sequence[Calibration], examples: int, digest: str) -> list[str]:
    """Returns the card's lines on calibrations that were fitted after training, on data of the given digest."""
    return [
        *(f"- {describe_calibration(calibration)}" for calibration in calibrations),
        f"- fitted after training, on {examples} examples of data with the digest `{digest}`",
    ]


def list_limits(heads: Sequence[AnyHead], dataset: Dataset, grouped: bool) -> list[str]:
    """Returns the uses that the data do not support, one sentence each; grouped: whether the data name groups."""
    train = dataset.splits["train"]
    limits = [
        "Inputs of another source or kind than the data above: nothing here was measured on them. A small p-value of "
        "novelty or a high epistemic uncertainty is a hint of such an input, its absence no proof that there is none."
    ]
    for head in heads:
        limits += _list_class_limits(head, dataset)
        limits += [
            f"{head.name}: {output} below {low:.4g} or above {high:.4g}{f' {unit}' if unit else ''}: outside the range "
            "of the training data."
            for output, low, high, unit in head.target_ranges(train.targets[head.name])
        ]
    if "test" not in dataset.splits:
        limits.append(
            "Decisions that need an unbiased score: there is no test split; validation chose the calibration."
        )
    if not grouped:
        limits.append(
            "Claims about new groups (patients, sites, devices): the data name no group, so equal groups may be in "
            "training and held-out splits."
        )
    return limits + [f"{note[0].upper()}{note[1:]}." for note in dataset.notes]


def _list_class_limits(head: AnyHead, dataset: Dataset) -> list[str]:
    """Names the classes with few or no examples; empty for a head without classes."""
    counts = {split: head.count_classes(examples.targets[head.name]) for split, examples in dataset.splits.items()}
    limits = []
    scarce = [f"{label} ({count})" for label, count in counts["train"].items() if count < _FEW_EXAMPLES]
    if scarce:
        limits.append(f"{head.name}: classes with fewer than {_FEW_EXAMPLES} training examples: {', '.join(scarce)}.")
    held_out = [counts[split] for split in ("validation", "test") if split in counts]
    unseen = [label for label in counts["train"] if not any(split_counts[label] for split_counts in held_out)]
    if unseen:
        limits.append(f"{head.name}: classes without held-out examples, so without a score: {', '.join(unseen)}")
    return limits


def _describe_head(head: AnyHead) -> str:
    place = "at each position" if head.per_position else "for each input"
    names = f": {', '.join(head.names)}" if head.names != (head.name,) else ""
    return f"- **{head.name}** ({head.likelihood}), {place}{names}"


def _describe_input(input: Input) -> str:
    values = f"values from {input.range[0]:g} to {input.range[1]:g}" if input.range else "raw values"
    return (
        f"`{[side or '?' for side in input.shape]}`, {values}{f' {input.unit}' if input.unit else ''}; "
        f"colour: {input.colour}; resize: {input.resize}. Scaling is inside the model."
    )


def _describe_data(heads: Sequence[AnyHead], dataset: Dataset) -> list[str]:
    counts = ", ".join(f"{len(examples)} {name}" for name, examples in dataset.splits.items())
    lines = [f"{counts}; digest `{dataset.digest}`.", ""]
    for head in heads:
        lines += [
            f"- {head.name}, {name}: {describe_targets(head, examples)}" for name, examples in dataset.splits.items()
        ]
    return lines


def _describe_quality(heads: Sequence[AnyHead], metrics: Mapping[str, Mapping[str, float]]) -> list[str]:
    lines = ["At the posterior mean:", "", "| head | measure | " + " | ".join(metrics) + " |"]
    lines.append("|---|---|" + "---|" * len(metrics))
    for head in heads:
        cells = " | ".join(_format_score(scores[head.name]) for scores in metrics.values())
        lines.append(f"| {head.name} | {head.metric_name} | {cells} |")
    return [*lines, "", "Full scores with intervals: `probrt evaluate`."]


def describe_calibration(calibration: Calibration) -> str:
    """Describes the calibration of a head in a line."""
    parameter = (
        f"temperature {calibration.temperature:g}" if calibration.temperature != 1 else f"scale {calibration.scale:g}"
    )
    coverages = ", ".join(f"{coverage:.0%}" for coverage in list_coverages(calibration.conformal))
    methods = ", ".join(dict.fromkeys(threshold.method for threshold in calibration.conformal))
    sets = f"; conformal coverage {coverages} ({methods})" if coverages else ""
    return f"{calibration.head}: {parameter}{sets}"


def _describe_fit(fit: FitSettings, seed: int, provenance: Mapping[str, Any]) -> list[str]:
    return [
        *_describe_tempering(provenance["kl_weight"]),
        f"- {fit.epochs} epochs of batches of {fit.batch}, {provenance['seconds']:.0f} s, seed {seed}",
        _describe_versions(provenance),
        "- the whole config is in `model.json`",
    ]


def _describe_tempering(kl_weight: float) -> list[str]:
    """Returns a line on a KL term with another weight than 1, or none."""
    if kl_weight == 1:
        return []
    return [
        f"- **Tempered**: the KL term has weight {kl_weight:.3g}, not 1. The posterior is "
        f"{'narrower' if kl_weight < 1 else 'wider'} than Bayes' rule gives; spread between draws is "
        "a fitted quantity, not a consequence of the prior."
    ]


def _describe_versions(provenance: Mapping[str, Any]) -> str:
    return "- versions: " + ", ".join(f"{name} {version}" for name, version in provenance["versions"].items())


def _format_score(score: float) -> str:
    return "no target" if math.isnan(score) else f"{score:.4f}"
