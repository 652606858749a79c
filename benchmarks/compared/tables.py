"""The tables of the recipe benchmark, as Markdown, from the answers that the networks have stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from compared.corruptions import CORRUPTIONS

# The level at which an image counts as unknown, as in `predict`.
UNKNOWN = 0.01
Networks = Mapping[str, Sequence[Sequence[Path]]]
"""By method, the files of each fold's networks."""


def print_scores(part: str, files: Sequence[Networks]) -> None:
    """Prints the scores of the test images, pooled over folds. files: of each seed; with several, scores are averaged.

    After ± stands the standard error over the seeds.
    """
    titles = ["method", "accuracy, %", "NLL", "ECE, 15 bins", "weights", "CPU minutes"]
    print(f"\n{part}\n\n| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for method, first in files[0].items():
        seeds = [networks[method] for networks in files if method in networks]
        for name in ("test", "tempered"):
            if name not in np.load(first[0][0]).files:
                continue
            scores = np.array([score_folds(folds, name) for folds in seeds])
            seconds = np.mean([_sum_over(networks, "seconds") for folds in seeds for networks in folds])
            title = method if name == "test" else f"{method}, with a temperature"
            if len(seeds) > 1:
                title += f", {len(seeds)} seeds"
            numbers = [format_average(scores[:, column], digits) for column, digits in enumerate((2, 4, 4))]
            cells = [title, *numbers, f"{_sum_over(first[0], 'weights'):,.0f}", f"{seconds / 60:.1f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


def format_average(values: np.ndarray, digits: int) -> str:
    """Returns the average, and after ± its standard error where there are several values."""
    average = f"{values.mean():.{digits}f}"
    return average if len(values) == 1 else f"{average} ± {values.std(ddof=1) / len(values) ** 0.5:.{digits}f}"


def score_folds(folds: Sequence[Sequence[Path]], name: str) -> tuple[float, float, float]:
    """Returns accuracy in percent, NLL and ECE of the networks of all folds on their images, pooled."""
    answers = [read_answers(networks, name) for networks in folds]
    labels, probabilities = (np.concatenate(arrays) for arrays in zip(*answers, strict=True))
    return score(labels, probabilities)


def _sum_over(files: Sequence[Path], name: str) -> float:
    return sum(float(np.load(file)[name]) for file in files)


def print_corruptions(files: Networks) -> None:
    """Prints accuracy and NLL of the first fold's networks on every corruption, and their means."""
    methods = [method for method in files if method != "plain Keras CNN"]
    print(f"\ncorruptions, accuracy in % / NLL\n\n| corruption | {' | '.join(methods)} |\n|---|{'---|' * len(methods)}")
    scores = {
        method: np.array([score(*read_answers(files[method][0], f"corrupted {name}"))[:2] for name in CORRUPTIONS])
        for method in methods
    }
    for row, name in enumerate([*CORRUPTIONS, "mean"]):
        pairs = [values[row] if row < len(values) else values.mean(0) for values in scores.values()]
        print(f"| {name} | {' | '.join(f'{accuracy:.1f} / {nll:.3f}' for accuracy, nll in pairs)} |", flush=True)


def print_novelty(models: Mapping[str, Sequence[Path]]) -> None:
    """Prints how well novelty tells strangers from test images, averaged over folds. models: answers by data set."""
    from sklearn.metrics import roc_auc_score

    print(
        "\nnovelty\n\n| model of | strangers | AUROC | flagged at 1 %, % | test images flagged, % |"
        "\n|---|---|---|---|---|"
    )
    for part, files in models.items():
        answers = [np.load(file) for file in files]
        prefix = "novelty score "
        kinds = [name.removeprefix(prefix) for name in (answers[0].files if answers else []) if prefix in name]
        for kind in kinds:
            if kind == "test":
                continue
            areas, flagged, alarms = [], [], []
            for arrays in answers:
                inside, outside = (arrays[prefix + name] for name in ("test", kind))
                is_outside = np.repeat([0, 1], [len(inside), len(outside)])
                areas.append(roc_auc_score(is_outside, np.concatenate([inside, outside])))
                flagged.append((arrays[f"novelty p {kind}"] <= UNKNOWN).mean())
                alarms.append((arrays["novelty p test"] <= UNKNOWN).mean())
            cells = [
                part,
                kind,
                f"{np.mean(areas):.4f}",
                f"{100 * np.mean(flagged):.1f}",
                f"{100 * np.mean(alarms):.1f}",
            ]
            print(f"| {' | '.join(cells)} |", flush=True)


def read_answers(files: Sequence[Path], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels and the mean probabilities of some networks on one set of images."""
    arrays = [np.load(file) for file in files]
    return arrays[0]["labels"], np.mean([array[name] for array in arrays], axis=0)


def score(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, float, float]:
    """Returns accuracy in percent, NLL in nats, and ECE of 15 bins."""
    from probrt.trainer.evaluate.scores import expected_calibration_error

    right = probabilities.argmax(1) == labels
    nll = -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-30)).mean()
    return 100 * float(right.mean()), float(nll), expected_calibration_error(probabilities.max(1), right)
