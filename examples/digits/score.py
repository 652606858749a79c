"""The closing table and the picture of the digits demo, from the rows that `probrt predict` wrote.

    python examples/digits/score.py FOLDER [ENGINE=SECONDS …]

FOLDER holds <set>.<engine>.jsonl for the sets test and shifted; seconds are of a whole command on test.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score

DATA = Path(__file__).parent / "data"
BINS = 15
QUANTITIES = ("mean", "total", "aleatoric", "epistemic")


def rows(path: Path) -> list[dict]:
    """The rows of a predictions file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def column(answers: list[dict], head: str, quantity: str) -> np.ndarray:
    """One quantity of one head over all rows."""
    return np.array([row["heads"][head][quantity] for row in answers])


def mask(row: dict, quantity: str) -> np.ndarray:
    """A per-pixel answer [28, 28] as the PNG holds it, 0 to 1."""
    return np.asarray(Image.open(row["heads"]["ink"][quantity]), np.float64) / 255


def expected_calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Mean gap between confidence and accuracy over equal bins (Naeini et al. 2015)."""
    which = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return sum(abs(right[which == b].mean() - confidence[which == b].mean()) * (which == b).mean() for b in set(which))


def targets() -> dict[str, dict[str, str]]:
    """The table's rows by file name."""
    with (DATA / "metadata.csv").open(newline="") as stream:
        return {Path(row["file_name"]).name: row for row in csv.DictReader(stream)}


def quality(test: list[dict], shifted: list[dict]) -> Table:
    """Accuracy, calibration and what the uncertainty knows."""
    known = [targets()[Path(row["file"]).name] for row in test]
    truth = np.array([int(row["digit"]) for row in known])
    probabilities = column(test, "digit", "mean")
    right = probabilities.argmax(1) == truth
    slant = np.array([float(row["slant"]) for row in known])
    interval = np.array([row["heads"]["slant"]["interval"] for row in test]).reshape(-1, 2)
    ious = []
    for row, true in zip(test, known, strict=True):
        said, ink = mask(row, "mean") > 0.5, np.asarray(Image.open(DATA / true["ink"])) > 127
        ious.append((said & ink).sum() / (said | ink).sum())
    held_out, other = column(test, "digit", "epistemic"), column(shifted, "digit", "epistemic")
    is_other = np.repeat([0, 1], [len(held_out), len(other)])
    table = Table(title="500 held-out digits, 32 draws", title_justify="left")
    table.add_column("what")
    table.add_column("value", justify="right")
    for what, value in (
        ("digit: accuracy", f"{right.mean():.1%}"),
        ("digit: NLL, nats", f"{-np.log(probabilities[np.arange(len(truth)), truth]).mean():.3f}"),
        (f"digit: ECE, {BINS} bins", f"{expected_calibration_error(probabilities.max(1), right):.3f}"),
        ("slant: mean absolute error, rad", f"{np.abs(column(test, 'slant', 'mean').ravel() - slant).mean():.4f}"),
        ("slant: coverage of 90 % intervals", f"{((interval[:, 0] <= slant) & (slant <= interval[:, 1])).mean():.1%}"),
        ("ink: mask IoU", f"{np.mean(ious):.3f}"),
        ("digit: epistemic, held-out, nats", f"{held_out.mean():.4f}"),
        ("digit: epistemic, shifted, nats", f"{other.mean():.4f}"),
        ("AUROC shifted against held-out, by epistemic", f"{roc_auc_score(is_other, [*held_out, *other]):.3f}"),
        (
            "AUROC shifted against held-out, by total",
            f"{roc_auc_score(is_other, [*column(test, 'digit', 'total'), *column(shifted, 'digit', 'total')]):.3f}",
        ),
    ):
        table.add_row(what, value)
    return table


def engines(folder: Path, names: list[str], seconds: dict[str, float]) -> Table:
    """Each engine's speed, and how far its answers lie from the first one's."""
    table = Table(title="engines, 500 images with 32 draws, whole command", title_justify="left")
    for name in ("engine", "seconds", "images/s", f"largest difference from {names[0]}", "in masks, of 255"):
        table.add_column(name, justify="left" if name == "engine" else "right")
    first = {part: rows(folder / f"{part}.{names[0]}.jsonl") for part in ("test", "shifted")}
    heads = [(head, quantity) for head in ("digit", "slant") for quantity in QUANTITIES]
    for name in names:
        differences, levels = [], []
        for part, reference in first.items():
            answers = rows(folder / f"{part}.{name}.jsonl")
            for head, quantity in heads:
                differences.append(np.abs(column(answers, head, quantity) - column(reference, head, quantity)).max())
            for row, other in zip(answers, reference, strict=True):
                levels.append(np.abs(mask(row, "mean") - mask(other, "mean")).max() * 255)
        spent = seconds.get(name)
        speed = (f"{spent:.1f}", f"{500 / spent:.0f}") if spent else ("", "")
        table.add_row(name, *speed, f"{max(differences):.1e}", f"{max(levels):.0f}")
    return table


def contact_sheet(test: list[dict], shifted: list[dict], path: Path) -> None:
    """The surest and the least sure images of both sets: image, ink found, and where the draws disagree."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    def chosen(answers: list[dict], order: int) -> list[dict]:
        return [answers[i] for i in np.argsort(order * column(answers, "digit", "total"))[:8]]

    groups = (
        ("held-out, surest", chosen(test, 1)),
        ("held-out, least sure", chosen(test, -1)),
        ("shifted, surest", chosen(shifted, 1)),
        ("shifted, least sure", chosen(shifted, -1)),
    )
    deviations = [np.sqrt(mask(row, "epistemic")) for _, group in groups for row in group]
    brightest = max(deviation.max() for deviation in deviations)
    figure, axes = plt.subplots(len(groups) * 3, 8, figsize=(9.6, 15.4), layout="constrained")
    for number, (title, group) in enumerate(groups):
        for at, row in enumerate(group):
            digit = row["heads"]["digit"]
            pictures = (
                (np.asarray(Image.open(row["file"])), "gray", 255),
                (mask(row, "mean"), "gray", 1),
                (np.sqrt(mask(row, "epistemic")), "inferno", brightest),
            )
            for line, (picture, colours, high) in enumerate(pictures):
                axis = axes[number * 3 + line, at]
                axis.imshow(picture, cmap=colours, vmin=0, vmax=high)
                axis.set_xticks([])
                axis.set_yticks([])
            axes[number * 3, at].set_title(
                f"{digit['label']}  {digit['probability']:.0%}\nepi {digit['epistemic']:.3f} nats", fontsize=7
            )
        for line, label in enumerate((title, "ink", "disagreement")):
            axes[number * 3 + line, 0].set_ylabel(label, fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(folder: Path, timed: list[str]) -> None:
    seconds = {name: float(value) for name, _, value in (entry.partition("=") for entry in timed)}
    names = list(seconds) or sorted(path.name.split(".")[1] for path in folder.glob("test.*.jsonl"))
    test, shifted = rows(folder / f"test.{names[0]}.jsonl"), rows(folder / f"shifted.{names[0]}.jsonl")
    console = Console(highlight=False)
    console.print(quality(test, shifted))
    console.print(engines(folder, names, seconds))
    contact_sheet(test, shifted, folder / "contact_sheet.png")
    console.print(f"{folder / 'contact_sheet.png'}: the surest and the least sure images")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
