"""The model card: what a model is, was made from, can do, and must not be used for as far as its data show.

After Mitchell et al. (2019), "Model cards for model reporting"; only what is known is said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from probrt.trainer.config.config import Config
from probrt.trainer.data.examples import Dataset
from probrt.trainer.data.summary import class_counts, targets
from probrt.trainer.heads import AnyHead
from probrt.trainer.heads.categorical import ClassHead
from probrt.trainer.heads.real import RealHead
from probrt.trainer.model import Model

_FEW = 30


def card(model: Model, config: Config, data: Dataset, provenance: Mapping[str, Any]) -> str:
    """The card's Markdown."""
    fit = config.fit
    lines = [f"# {model.name}", "", "## What it answers", ""]
    for head in model.heads:
        where = "at each position" if head.per_position else "for each input"
        names = f": {', '.join(head.names)}" if head.names != (head.name,) else ""
        lines.append(f"- **{head.name}** ({head.__struct_config__.tag}), {where}{names}")
    lines += ["", "## What it takes", ""]
    span = f"values from {model.input.range[0]:g} to {model.input.range[1]:g}" if model.input.range else "raw values"
    lines.append(
        f"`{[side or '?' for side in model.input.shape]}`, {span}{f' {model.input.unit}' if model.input.unit else ''}; "
        f"colour: {model.input.colour}; resize: {model.input.resize}. Scaling is inside the model."
    )
    lines += ["", "## Data", ""]
    counts = ", ".join(f"{len(examples)} {name}" for name, examples in data.splits.items())
    lines += [f"{counts}; digest `{data.digest}`.", ""]
    for head in model.heads:
        lines += [f"- {head.name}, {name}: {targets(head, examples)}" for name, examples in data.splits.items()]
    lines += ["", "## Quality", "", "At the posterior mean:", ""]
    lines += ["| head | measure | " + " | ".join(provenance["metrics"]) + " |"]
    lines += ["|---|---|" + "---|" * len(provenance["metrics"])]
    for head in model.heads:
        each = " | ".join(_number(scores[head.name]) for scores in provenance["metrics"].values())
        lines.append(f"| {head.name} | {head.metric_name} | {each} |")
    lines += ["", "Full scores with intervals: `probrt evaluate`.", "", "## Calibration", ""]
    for one in model.calibration:
        fitted = f"temperature {one.temperature:g}" if one.temperature != 1 else f"scale {one.scale:g}"
        promised = ", ".join(f"{c.coverage:.0%}" for c in one.conformal)
        sets = f"; conformal coverage {promised} ({one.conformal[0].method})" if promised else ""
        lines.append(f"- {one.head}: {fitted}{sets}")
    lines += ["", "## What it must not be used for", ""]
    lines += [f"- {limit}" for limit in limits(model.heads, data, config)]
    lines += ["", "## How it was made", ""]
    if fit.kl_weight != 1:
        lines.append(
            f"- **Tempered**: the KL term has weight {fit.kl_weight:g}, not 1. The posterior is "
            f"{'narrower' if fit.kl_weight < 1 else 'wider'} than Bayes' rule gives; spread between draws is "
            "a fitted quantity, not a consequence of the prior."
        )
    lines.append(f"- {fit.epochs} epochs of batches of {fit.batch}, {provenance['seconds']:.0f} s, seed {config.seed}")
    lines.append("- versions: " + ", ".join(f"{name} {version}" for name, version in provenance["versions"].items()))
    lines.append("- the whole config is in `model.json`")
    return "\n".join(lines) + "\n"


def limits(heads: Sequence[AnyHead], data: Dataset, config: Config) -> list[str]:
    """What the data do not support, one sentence each."""
    train = data.splits["train"]
    found = [
        "Inputs of another source or kind than the data above: nothing here was measured on them. A high epistemic "
        "uncertainty is a hint of such an input, its absence no proof that there is none."
    ]
    for head in heads:
        if isinstance(head, ClassHead):
            counts = class_counts(head, train)
            scarce = [f"{label} ({n})" for label, n in zip(head.labels, counts, strict=True) if n < _FEW]
            if scarce:
                found.append(f"{head.name}: classes with fewer than {_FEW} training examples: {', '.join(scarce)}.")
            held_out = [name for name in ("validation", "test") if name in data.splits]
            unseen = [
                label
                for number, label in enumerate(head.labels)
                if not any(class_counts(head, data.splits[name])[number] for name in held_out)
            ]
            if unseen:
                found.append(f"{head.name}: classes without held-out examples, so without a score: {', '.join(unseen)}")
        elif isinstance(head, RealHead):
            values = train.targets[head.name].reshape(-1, head.size)
            for name, column in zip(head.names, values.T, strict=False):
                known = column[np.isfinite(column)]
                if len(known):
                    found.append(
                        f"{head.name}: {name} below {known.min():.4g} or above {known.max():.4g}"
                        f"{f' {head.unit}' if head.unit else ''}: outside of what was trained on."
                    )
    if "test" not in data.splits:
        found.append("Decisions that need an unbiased score: there is no test split; validation chose the calibration.")
    if not config.data.group:
        found.append(
            "Claims about new groups (patients, sites, devices): the data name no group, so equal groups may be in "
            "training and held-out splits."
        )
    return found + [f"{note[0].upper()}{note[1:]}." for note in data.notes]


def _number(value: float) -> str:
    return "no target" if math.isnan(value) else f"{value:.4f}"
