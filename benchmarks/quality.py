"""Accuracy, calibration and unfamiliar images: probrt next to what people use instead, on 5,000 MNIST digits.

    python benchmarks/quality.py [--methods NAME …] [--folds 5] [--epochs 30] [--out build/quality]

Five folds over the 5,000 digits, predictions out of fold pooled. All methods have the same LeNet-5 trunk (LeCun et al.
1998, with twice the filters), the same augmentation, batches and epochs, and Adam with the same schedule; the ensemble
trains five networks, which is five times the budget; the deterministic network is its first member. A tenth of each
fold's training digits is held out to fit a temperature, where a method has one. AUROC is of the entropy of the mean
(total uncertainty) against images of another kind, with that of the epistemic part below it. Each fold's predictions
are kept in --out and not made again, so a run that was stopped goes on.
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
from compared.pictures import KINDS, digits, split_of, unfamiliar
from compared.scores import scores

ALL = METHODS | TRIED


def run_fold(name: str, fold: int, epochs: int, file: Path) -> None:
    """Fits one method on one fold and keeps each draw's probabilities of validation, fold and unfamiliar images."""
    images, labels, folds = digits()
    train, validation, rows = split_of(fold, images, labels, folds)
    start = time.monotonic()
    answer = ALL[name].fit(train, validation, epochs, fold)
    seconds = time.monotonic() - start
    pictures = {"validation": validation.images, "fold": images[rows], **unfamiliar(images)}
    kept = {kind: answer(each).astype(np.float32) for kind, each in pictures.items()}
    np.savez_compressed(file, seconds=seconds, **kept)


def fit_fold(name: str, fold: int, epochs: int, file: Path) -> None:
    """Has run_fold done in a process of its own; the file is there only when it is whole."""
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
    """Fits what is missing, then prints the table as Markdown, a line when it is known."""
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
        stem = (method.of or name).replace("/", "_").replace(" ", "_")
        files = [options.out / f"{stem}.{options.epochs}.{fold}.npz" for fold in range(options.folds)]
        for fold, file in enumerate(files):
            if not file.exists():
                fit_fold(method.of or name, fold, options.epochs, file)
        found = scores(method, files, options.resamples)
        cells = [
            f"{value:.4g} ({low:.4g} to {high:.4g})" for value, low, high in (found.accuracy, found.nll, found.ece)
        ]
        epistemic = {kind: "" if method.one else f" / {found.epistemic[kind]:.3f}" for kind in KINDS}
        cells += [f"{found.total[kind]:.3f}{epistemic[kind]}" for kind in KINDS]
        print(f"| {' | '.join([name, *cells, f'{found.seconds:.0f}'])} |", flush=True)


if __name__ == "__main__":
    main()
