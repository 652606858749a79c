"""Compares `probrt label` with a random choice of the images to label, over several seeds, all by the command line.

    python benchmarks/labelling.py [--seeds 5] [--start 100] [--take 100] [--quick] [--out FOLDER]

A model of `--start` labelled MNIST digits chooses `--take` of 3,000 others. It is trained anew with these, and with as
many random ones. Both are scored on 1,000 digits that neither has seen. From seed to seed the first digits, the random
choice and the training differ.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from compared import folders
from compared.command_line import run_probrt

POOL, TEST, EPOCHS = 3000, 1000, 200
CONFIG = """name = "digits"
seed = {seed}
[data]
folder = "."
shift = 2
rotate = 12
zoom = 0.12
[input]
shape = [28, 28, 1]
colour = "grey"
resize = "none"
range = [0, 255]
[backbone]
name = "conv"
widths = [8, 16, 32]
[[heads]]
name = "digit"
likelihood = "categorical"
labels = {labels}
[fit]
epochs = {epochs}
batch = 16
"""


def read_digits(folder: Path) -> list[tuple[str, str]]:
    """Writes the digits into a folder and returns their files and labels."""
    folders.write_mnist(folder)
    with (folder / "fold0.csv").open(newline="") as stream:
        return [(row["file_name"], row["kind"]) for row in csv.DictReader(stream)]


def train(data: Path, name: str, labelled: Sequence[tuple[str, str]], test: Sequence[tuple[str, str]], seed: int,
          epochs: int) -> dict[str, float]:  # fmt: skip
    """Trains on some labelled digits and returns the accuracy and the NLL on the test digits."""
    rows = [(file, label, "validation" if place % 5 == 0 else "train") for place, (file, label) in enumerate(labelled)]
    with (data / "metadata.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file_name", "digit", "split"])
        writer.writerows([*rows, *((file, label, "test") for file, label in test)])
    labels = json.dumps([str(digit) for digit in range(10)])
    (data / "config.toml").write_text(CONFIG.format(seed=seed, labels=labels, epochs=epochs))
    run_probrt("train", "config.toml", "--out", name, "--overwrite", cwd=data)
    run_probrt("evaluate", name, "--out", f"{name}.json", "--overwrite", cwd=data)
    (head,) = json.loads((data / f"{name}.json").read_text())["heads"]
    scores = head["scores"]
    return {score: scores[score][0] for score in ("accuracy", "NLL")}


def choose(data: Path, pool: Sequence[tuple[str, str]], take: int) -> list[tuple[str, str]]:
    """Exports the first model and returns the digits that `probrt label` chooses, with their labels."""
    shutil.rmtree(data / "artifacts", ignore_errors=True)
    run_probrt("export", "first", "--formats", "savedmodel", cwd=data)
    listing = data / "pool.txt"
    listing.write_text("".join(f"{data / file}\n" for file, _ in pool))
    run_probrt("label", listing, "--take", take, "--draws", 64, "--overwrite", "--quiet", cwd=data)
    labels = {str(data / file): (file, label) for file, label in pool}
    with (data / "to_label.csv").open(newline="") as stream:
        return [labels[row["file"]] for row in csv.DictReader(stream)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--start", type=int, default=100)
    parser.add_argument("--take", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="one seed and three epochs")
    parser.add_argument("--out", type=Path, default=Path("build/labelling"))
    options = parser.parse_args()
    data = options.out.resolve()
    data.mkdir(parents=True, exist_ok=True)
    digits = read_digits(data)
    differences = []
    print("| seed | first, accuracy | chosen | random | first, NLL | chosen | random |\n|---|---|---|---|---|---|---|")
    for seed in range(1 if options.quick else options.seeds):
        order = np.random.default_rng(seed).permutation(len(digits))
        test = [digits[place] for place in order[:TEST]]
        first = [digits[place] for place in order[TEST : TEST + options.start]]
        pool = [digits[place] for place in order[TEST + options.start :][:POOL]]
        settings = (test, seed, 3 if options.quick else EPOCHS)
        before = train(data, "first", first, *settings)
        chosen = train(data, "chosen", [*first, *choose(data, pool, options.take)], *settings)
        at_random = train(data, "random", [*first, *pool[: options.take]], *settings)
        results = (before, chosen, at_random)
        print(
            f"| {seed} | "
            + " | ".join(f"{100 * result['accuracy']:.1f}" for result in results)
            + " | "
            + " | ".join(f"{result['NLL']:.3f}" for result in results)
            + " |",
            flush=True,
        )
        differences.append(100 * (chosen["accuracy"] - at_random["accuracy"]))
    error = np.std(differences, ddof=1) / np.sqrt(len(differences)) if len(differences) > 1 else float("nan")
    print(f"chosen - random: {np.mean(differences):.2f} points of accuracy, standard error {error:.2f}")


if __name__ == "__main__":
    main()
