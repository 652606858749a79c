"""Compares probrt with other methods on 5,000 MNIST digits: accuracy, calibration, and unfamiliar images.

    python benchmarks/quality.py [--methods NAME …] [--folds 5] [--epochs 30] [--out build/quality]

The benchmark fits each method on five folds over the 5,000 digits and pools the predictions out of fold. All methods
have the same LeNet-5 trunk (LeCun et al. 1998, with twice the filters), the same augmentation, batches and epochs, and
Adam with the same schedule. The ensemble trains five networks, which is five times the budget. The deterministic
network is its first member. A tenth of each fold's training digits is held out from training; methods with a
temperature fit it to them. AUROC measures how well the entropy of the mean (total uncertainty) separates the digits
from images of another kind; the figure after the slash is that of the epistemic part. The predictions of each fold are
stored in --out, so an interrupted run continues where it stopped.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
from compared.methods import METHODS, TRIED
from compared.networks import DRAWS
from compared.pictures import KINDS, make_unfamiliar, read_digits, split_fold
from compared.scores import compute_scores

ALL = METHODS | TRIED


def run_fold(name: str, fold: int, epochs: int, file: Path) -> None:
    """Fits one method on one fold and stores the probabilities of each draw.

    The file has them for the validation images, the images of the fold and the unfamiliar images.
    """
    images, labels, folds = read_digits()
    train, validation, rows = split_fold(fold, images, labels, folds)
    start = time.monotonic()
    predict_draws = ALL[name].fit(train, validation, epochs, fold)
    seconds = time.monotonic() - start
    pictures = {"validation": validation.images, "fold": images[rows], **make_unfamiliar(images)}
    draws = {kind: predict_draws(batch).astype(np.float32) for kind, batch in pictures.items()}
    np.savez_compressed(file, seconds=seconds, **draws)


def fit_fold(name: str, fold: int, epochs: int, file: Path) -> None:
    """Runs run_fold in its own process. The file appears only when it is complete."""
    legacy = {"TF_USE_LEGACY_KERAS": "1"} if ALL[name].legacy else {}
    part = file.with_suffix(".part.npz")
    subprocess.run(
        [sys.executable, __file__, "--epochs", str(epochs), "--fit", name, str(fold), str(part)],
        check=True,
        env={**os.environ, **legacy},
        stderr=subprocess.DEVNULL,
    )
    part.replace(file)


def main() -> None:
    """Fits the networks that are missing and prints the table as Markdown, line by line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(ALL))
    parser.add_argument("--folds", type=int, default=5, choices=range(1, 6))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("build/quality"))
    parser.add_argument("--fit", nargs=3, metavar=("METHOD", "FOLD", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fit:
        run_fold(options.fit[0], int(options.fit[1]), options.epochs, Path(options.fit[2]))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    print(f"{options.folds} of 5 folds, {options.epochs} epochs, {DRAWS} draws; AUROC by total / epistemic\n")
    titles = ["method", "accuracy, %", "NLL", "ECE, 15 bins", *(f"AUROC {kind}" for kind in KINDS), "s a fold"]
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}", flush=True)
    for name in options.methods:
        method = ALL[name]
        stem = (method.networks_of or name).replace("/", "_").replace(" ", "_")
        files = [options.out / f"{stem}.{options.epochs}.{fold}.npz" for fold in range(options.folds)]
        for fold, file in enumerate(files):
            if not file.exists():
                fit_fold(method.networks_of or name, fold, options.epochs, file)
        scores = compute_scores(method, files, options.resamples)
        cells = [
            f"{value:.4g} ({low:.4g} to {high:.4g})" for value, low, high in (scores.accuracy, scores.nll, scores.ece)
        ]
        epistemic = {kind: "" if method.first_draw_only else f" / {scores.epistemic[kind]:.3f}" for kind in KINDS}
        cells += [f"{scores.total[kind]:.3f}{epistemic[kind]}" for kind in KINDS]
        print(f"| {' | '.join([name, *cells, f'{scores.seconds:.0f}'])} |", flush=True)


if __name__ == "__main__":
    main()
