"""Prints the tables and draws the picture at the end of the digits demo, from the rows that `probrt predict` wrote.

    python examples/digits/score.py FOLDER [ENGINE=SECONDS …]

FOLDER holds <set>.<engine>.jsonl for the sets test and shifted. SECONDS is the time of a whole command on test.
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
# The strangers by the beginning of their file names.
KINDS = {"letter": "letters", "noise": "noise", "rotated": "turned digits", "blurred": "blurred digits"}
QUANTITIES = ("mean", "total", "aleatoric", "epistemic")


def read_rows(path: Path) -> list[dict]:
    """Reads the rows of a predictions file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def column(rows: list[dict], head: str, quantity: str) -> np.ndarray:
    """One quantity of one head, [rows, …]."""
    return np.array([row["heads"][head][quantity] for row in rows])


def read_map(row: dict, quantity: str) -> np.ndarray:
    """Reads a map of the ink head [28, 28] from its PNG, scaled to [0, 1]."""
    return np.asarray(Image.open(row["heads"]["ink"][quantity]), np.float64) / 255


def expected_calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Mean gap between confidence and accuracy over bins of equal width (Naeini et al. 2015)."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return sum(abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in set(bins))


def read_targets() -> dict[str, dict[str, str]]:
    """Reads the rows of the data's table by file name."""
    with (DATA / "metadata.csv").open(newline="") as stream:
        return {Path(row["file_name"]).name: row for row in csv.DictReader(stream)}


def make_table(title: str) -> Table:
    """Returns a table without lines, so that all of them fit into 80 columns."""
    return Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False)


def make_novelty_table(test: list[dict], shifted: list[dict]) -> Table:
    """Tabulates how many images of each kind are called unknown, and how well novelty and `total` separate them."""
    table = make_table("strangers, by novelty")
    for what in ("images", "unknown at 1 %", "AUROC by novelty", "by total"):
        table.add_column(what, justify="left" if what == "images" else "right")
    table.add_row("held-out digits (false alarms)", f"{share_unknown(test):.1%}", "", "")
    for kind in KINDS:
        strangers = [row for row in shifted if Path(row["file"]).name.startswith(kind)]
        is_stranger = np.repeat([0, 1], [len(test), len(strangers)])
        novelty, total = (
            roc_auc_score(is_stranger, np.concatenate([measure(test), measure(strangers)]))
            for measure in (read_scores, lambda rows: column(rows, "digit", "total"))
        )
        table.add_row(KINDS[kind], f"{share_unknown(strangers):.1%}", f"{novelty:.3f}", f"{total:.3f}")
    return table


def share_unknown(rows: list[dict]) -> float:
    """The share of rows whose image is called unknown."""
    return float(np.mean([row["novelty"]["unknown"] for row in rows]))


def read_scores(rows: list[dict]) -> np.ndarray:
    """The novelty scores, [rows]."""
    return np.array([row["novelty"]["score"] for row in rows])


def make_quality_table(test: list[dict], shifted: list[dict]) -> Table:
    """Tabulates accuracy, calibration, and the epistemic uncertainty of both sets."""
    table_rows = read_targets()
    targets = [table_rows[Path(row["file"]).name] for row in test]
    truth = np.array([int(target["digit"]) for target in targets])
    probabilities = column(test, "digit", "mean")
    right = probabilities.argmax(1) == truth
    slant = np.array([float(target["slant"]) for target in targets])
    interval = np.array([row["heads"]["slant"]["interval"] for row in test]).reshape(-1, 2)
    ious = []
    for row, target in zip(test, targets, strict=True):
        predicted, ink = read_map(row, "mean") > 0.5, np.asarray(Image.open(DATA / target["ink"])) > 127
        ious.append((predicted & ink).sum() / (predicted | ink).sum())
    epistemic = {"held-out": column(test, "digit", "epistemic"), "shifted": column(shifted, "digit", "epistemic")}
    table = make_table("500 held-out digits, 32 draws")
    table.add_column("what")
    table.add_column("value", justify="right")
    for what, value in (
        ("digit: accuracy", f"{right.mean():.1%}"),
        ("digit: NLL, nats", f"{-np.log(probabilities[np.arange(len(truth)), truth]).mean():.3f}"),
        (f"digit: ECE, {BINS} bins", f"{expected_calibration_error(probabilities.max(1), right):.3f}"),
        ("slant: mean absolute error, rad", f"{np.abs(column(test, 'slant', 'mean').ravel() - slant).mean():.4f}"),
        ("slant: coverage of 90 % intervals", f"{((interval[:, 0] <= slant) & (slant <= interval[:, 1])).mean():.1%}"),
        ("ink: mask IoU", f"{np.mean(ious):.3f}"),
        ("digit: epistemic, held-out, nats", f"{epistemic['held-out'].mean():.4f}"),
        ("digit: epistemic, shifted, nats", f"{epistemic['shifted'].mean():.4f}"),
    ):
        table.add_row(what, value)
    return table


def make_engine_table(folder: Path, names: list[str], seconds: dict[str, float]) -> Table:
    """Tabulates the speed of each engine and the largest difference of its answers from those of the first engine."""
    table = make_table("engines, 500 images with 32 draws, whole command")
    for name in ("engine", "seconds", "images/s", f"differs from {names[0]} by", "in masks, of 255"):
        table.add_column(name, justify="left" if name == "engine" else "right")
    first = {part: read_rows(folder / f"{part}.{names[0]}.jsonl") for part in ("test", "shifted")}
    heads = [(head, quantity) for head in ("digit", "slant") for quantity in QUANTITIES]
    for name in names:
        differences, levels = [], []
        for part, reference in first.items():
            rows = read_rows(folder / f"{part}.{name}.jsonl")
            for head, quantity in heads:
                differences.append(np.abs(column(rows, head, quantity) - column(reference, head, quantity)).max())
            for row, reference_row in zip(rows, reference, strict=True):
                levels.append(np.abs(read_map(row, "mean") - read_map(reference_row, "mean")).max() * 255)
        duration = seconds.get(name)
        speed = (f"{duration:.1f}", f"{500 / duration:.0f}") if duration else ("", "")
        table.add_row(name, *speed, f"{max(differences):.1e}", f"{max(levels):.0f}")
    return table


def draw_contact_sheet(test: list[dict], shifted: list[dict], path: Path) -> None:
    """Draws the most and the least certain images of both sets, their predicted ink and its epistemic uncertainty.

    The title of each gives the digit, or that the image is unknown, and the p-value of its novelty.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    def choose_rows(rows: list[dict], order: int) -> list[dict]:
        return [rows[i] for i in np.argsort(order * column(rows, "digit", "total"))[:8]]

    groups = (
        ("held-out, surest", choose_rows(test, 1)),
        ("held-out, least sure", choose_rows(test, -1)),
        ("shifted, surest", choose_rows(shifted, 1)),
        ("shifted, least sure", choose_rows(shifted, -1)),
    )
    deviations = [np.sqrt(read_map(row, "epistemic")) for _, group in groups for row in group]
    brightest = max(deviation.max() for deviation in deviations)
    figure, axes = plt.subplots(len(groups) * 3, 8, figsize=(9.6, 15.4), layout="constrained")
    for block, (title, group) in enumerate(groups):
        for column_index, row in enumerate(group):
            digit = row["heads"]["digit"]
            pictures = (
                (np.asarray(Image.open(row["file"])), "gray", 255),
                (read_map(row, "mean"), "gray", 1),
                (np.sqrt(read_map(row, "epistemic")), "inferno", brightest),
            )
            for line, (picture, colours, high) in enumerate(pictures):
                axis = axes[block * 3 + line, column_index]
                axis.imshow(picture, cmap=colours, vmin=0, vmax=high)
                axis.set_xticks([])
                axis.set_yticks([])
            novelty = row["novelty"]
            is_unknown = novelty["unknown"]
            axes[block * 3, column_index].set_title(
                f"{'unknown' if is_unknown else digit['label']}  {digit['probability']:.0%}\n"
                f"epi {digit['epistemic']:.3f}  p {novelty['p_value']:.3f}",
                fontsize=7,
                color="tab:red" if is_unknown else "black",
            )
        for line, label in enumerate((title, "ink", "disagreement")):
            axes[block * 3 + line, 0].set_ylabel(label, fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(folder: Path, timings: list[str]) -> None:
    """Prints both tables and writes the contact sheet into the folder."""
    seconds = {name: float(value) for name, _, value in (entry.partition("=") for entry in timings)}
    names = list(seconds) or sorted(path.name.split(".")[1] for path in folder.glob("test.*.jsonl"))
    test, shifted = read_rows(folder / f"test.{names[0]}.jsonl"), read_rows(folder / f"shifted.{names[0]}.jsonl")
    console = Console(highlight=False)
    console.print(make_quality_table(test, shifted))
    console.print(make_novelty_table(test, shifted))
    console.print(make_engine_table(folder, names, seconds))
    draw_contact_sheet(test, shifted, folder / "contact_sheet.png")
    console.print(f"{folder / 'contact_sheet.png'}: the surest and the least sure images")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
