"""Measures what `probrt train` gives on three data sets, each with one config that states nothing but its data.

    python benchmarks/recipe.py [--part mnist|fashion|emoji|corruptions|novelty …] [--seeds 5] [--quick] [--out FOLDER]

| part | data | compared |
|---|---|---|
| mnist | 5,000 MNIST digits, five folds pooled | probrt, deterministic, plain Keras CNN |
| fashion | Fashion-MNIST, 54,000 + 6,000 for training, 10,000 for the test | the same |
| emoji | 64 x 64 in colour, nine groups, on which nothing was tuned | the same |
| corruptions | the first fold's digits, changed in 15 ways | probrt, deterministic, five deterministic nets |
| novelty | pictures of no class against the test images of those of the first three that are trained | probrt |

The deterministic networks have the same config with `bayesian = "none"`, so the same trunk, schedule and augmentation.
The plain CNN has as many weights as the deterministic network and trains for as many CPU seconds as probrt's model:
other work on the machine changes the time on the clock, not these. `--methods … "five probrt nets"` adds five of ours,
"five deterministic nets" those to other parts. All parts take three hours of processor time, most of it the clothes.
Every network is trained by `probrt train` in a process of its own, but the plain CNN, which Keras trains. The answers
lie in --out, so an interrupted run continues where it stopped. --seeds trains each single network as often, and scores
are their averages with standard errors. --quick takes one fold, three epochs and no ensembles.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
from compared import folders
from compared.corruptions import corrupt
from compared.strangers import make_strangers
from compared.tables import print_corruptions, print_novelty, print_scores

RECIPES = Path(__file__).parent / "recipes"
PARTS = ("mnist", "fashion", "emoji", "corruptions", "novelty")
DRAWS, MEMBERS = 32, 5
# By the name of an ensemble, what its members are.
ENSEMBLES = {"five probrt nets": "probrt", "five deterministic nets": "deterministic"}
METHODS = ("probrt", "deterministic", "plain Keras CNN", *ENSEMBLES)
# Five networks take five times as long: by default the part that is about them has them.
SINGLE_METHODS = ("probrt", "deterministic", "plain Keras CNN")
CORRUPTION_METHODS = ("probrt", "deterministic", "five deterministic nets")


@dataclass(frozen=True)
class Run:
    """One network to train: the data set, the fold where it has folds, the settings over the recipe, and the seed."""

    part: str
    fold: int | None
    method: str
    seed: int
    epochs: int | None

    @property
    def name(self) -> str:
        """The name of its files."""
        words = [self.part, *([] if self.fold is None else [f"fold{self.fold}"]), self.method, str(self.seed)]
        return ".".join(words).replace(" ", "_") + (f".{self.epochs}" if self.epochs else "")


def write_config(run: Run, folder: Path) -> Path:
    """Writes the config of a run beside its data and returns its path: the recipe with a few lines replaced."""
    text = (RECIPES / f"{run.part}.toml").read_text(encoding="utf-8")
    text = text.replace("seed = 1", f"seed = {run.seed}").replace('folder = "data"', 'folder = "."')
    if run.fold is not None:
        text = text.replace('folder = "."', f'folder = "."\ntable = "fold{run.fold}.csv"')
    if run.method != "probrt":
        text += '\n[weights]\nbayesian = "none"\n'
    if run.epochs:
        text = re.sub(r"(?m)^epochs = .*\n", "", text)
        text = text.replace("[fit]\n", "") if text.rstrip().endswith("[fit]") else text
        text += f"\n[fit]\nepochs = {run.epochs}\n" if "[fit]" not in text else ""
        text = text.replace("[fit]\n", f"[fit]\nepochs = {run.epochs}\n") if "epochs" not in text else text
    path = folder / f"{run.name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def train(run: Run, data: Path, out: Path, fashion: Path) -> Path:
    """Trains a run by `probrt train` unless it is trained already; returns the file of its probabilities."""
    file = out / f"{run.name}.npz"
    if not file.exists():
        config = write_config(run, data)
        model = out / "models" / run.name
        probrt = Path(sys.executable).parent / "probrt"
        resume = "--resume" if (model / "checkpoints").exists() else "--overwrite"
        used = out / f"{run.name}.seconds"  # of this training so far, also of parts that were interrupted
        if resume == "--overwrite":
            used.unlink(missing_ok=True)
        before = child_seconds() - (float(used.read_text()) if used.exists() else 0.0)
        try:
            subprocess.run([probrt, "train", config, "--out", model, resume], check=True, stdout=subprocess.DEVNULL)
        finally:
            used.write_text(str(child_seconds() - before))
        words = [model, config, file, used, fashion]
        subprocess.run([sys.executable, __file__, "--answer", *words], check=True)
    return file


def child_seconds() -> float:
    """Returns the CPU seconds of all processes that this one has started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def answer(model_folder: Path, config: Path, file: Path, used: Path, fashion: Path) -> None:
    """Stores a trained model's novelty and its probabilities of the test images and, of digits, of their corruptions.

    used: a file with the CPU seconds of the training. fashion: a folder with Fashion-MNIST, for strangers.
    """
    from probrt.trainer import data, store
    from probrt.trainer.calibration.calibrate import predict_examples
    from probrt.trainer.config.config import load_config
    from probrt.trainer.data import Examples
    from probrt.trainer.evaluate.answers import compute_novelty

    model, _ = store.load_model(model_folder)
    settings = load_config(config)
    test = data.read_dataset(settings, config.parent).splits["test"]
    (head,) = model.heads
    draws = DRAWS if model.weights else 1
    sets = {"test": test.images}
    if "fold0" in config.name:
        sets |= {f"corrupted {name}": images[..., None] for name, images in corrupt(test.images[..., 0]).items()}
    probabilities = {
        name: predict_examples(model, Examples(test.files, images, test.targets), 7, draws)[head.name]["mean"]
        for name, images in sets.items()
    }
    novelty: dict[str, np.ndarray] = {}
    if model.weights:
        strangers = make_strangers(config.name.split(".")[0], fashion)
        for name, images in {"test": test.images, **strangers}.items():
            values = compute_novelty(model, Examples(test.files[: len(images)], images, {}))
            assert values is not None, "the recipe's data sets are large enough for novelty"
            novelty |= {f"novelty score {name}": values.score, f"novelty p {name}": values.p_value}
    weights = sum(int(np.prod(variable.shape)) for variable in model.network.trainable_variables)
    weights -= sum(int(np.prod(weight.shape)) for weight in model.weights)  # each has a mean and a scale
    write_npz(
        file,
        labels=test.targets[head.name],
        seconds=float(used.read_text()),
        weights=weights,
        **probabilities,
        **novelty,
    )


def answer_plain(config: Path, weights: int, seconds: float, seed: int, file: Path) -> None:
    """Trains the plain CNN and stores its probabilities."""
    from compared.plain_cnn import fit_plain_cnn

    from probrt.trainer import data
    from probrt.trainer.config.config import load_config

    probabilities, elapsed = fit_plain_cnn(config, weights, seconds, seed)
    settings = load_config(config)
    labels = data.read_dataset(settings, config.parent).splits["test"].targets[settings.heads[0].name]
    write_npz(file, labels=labels, seconds=elapsed, weights=weights, **probabilities)


def write_npz(file: Path, **arrays: object) -> None:
    """Writes an archive that appears only when it is complete."""
    part = file.with_suffix(".part.npz")
    np.savez_compressed(part, **arrays)
    part.replace(file)


def prepare(part: str, out: Path, fashion: Path) -> Path:
    """Writes a data set unless it is there; returns its folder."""
    folder = out / "data" / part
    if not (folder / "written").exists():
        writers: dict[str, Callable[[], None]] = {
            "mnist": lambda: folders.write_mnist(folder),
            "fashion": lambda: folders.write_fashion(folder, fashion),
            "emoji": lambda: folders.write_emoji(folder),
        }
        writers[part]()
        (folder / "written").touch()
    return folder


def list_folds(part: str, options: argparse.Namespace) -> list[int | None]:
    """Returns the folds of a part that are asked for; None stands for a data set that has no folds."""
    if part == "corruptions":
        return [0]
    return list(range(1 if options.quick else options.folds)) if part == "mnist" else [None]


def find_models(options: argparse.Namespace) -> dict[str, list[Path]]:
    """Returns the answers of probrt's networks that are trained, by data set."""
    return {
        part: [
            file
            for fold in list_folds(part, options)
            if (file := options.out / f"{Run(part, fold, 'probrt', 1, options.epochs).name}.npz").exists()
        ]
        for part in ("mnist", "fashion", "emoji")
    }


def train_part(
    part: str, methods: Sequence[str], seed: int, options: argparse.Namespace
) -> dict[str, list[list[Path]]]:
    """Trains the networks of a part from one seed; returns, by method, the files of each fold's networks.

    Five nets have the seeds 1 to 5, so only the first seed has them.
    """
    trained = "mnist" if part == "corruptions" else part
    data = prepare(trained, options.out, options.fashion)
    methods = [method for method in methods if seed == 1 or method not in ENSEMBLES]
    files: dict[str, list[list[Path]]] = {method: [] for method in methods}
    for fold in list_folds(part, options):

        def fit(method: str, seed: int, fold: int | None = fold) -> Path:
            return train(Run(trained, fold, method, seed, options.epochs), data, options.out, options.fashion)

        ours = fit("probrt", seed)
        for method in methods:
            if method == "probrt":
                files[method].append([ours])
            elif method == "plain Keras CNN":
                files[method].append(
                    [train_plain(Run(trained, fold, method, seed, options.epochs), data, ours, options.out)]
                )
            else:
                seeds = range(1, 1 + MEMBERS) if method in ENSEMBLES else [seed]
                files[method].append([fit(ENSEMBLES.get(method, method), member_seed) for member_seed in seeds])
    return files


def train_plain(run: Run, data: Path, ours: Path, out: Path) -> Path:
    """Trains the plain CNN with the weights and CPU seconds of a network of ours; returns the file of its answers."""
    file = out / f"{run.name}.npz"
    if not file.exists():
        about = np.load(ours)
        words = [write_config(run, data), about["weights"], about["seconds"], run.seed, file]
        subprocess.run([sys.executable, __file__, "--plain", *map(str, words)], check=True)
    return file


def main() -> None:
    """Trains the networks that are missing and prints the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--methods", nargs="*", choices=METHODS)
    parser.add_argument("--folds", type=int, default=folders.FOLDS, choices=range(1, folders.FOLDS + 1))
    parser.add_argument("--seeds", type=int, default=1, metavar="N")
    parser.add_argument("--epochs", type=int, metavar="N", help="default: those of `probrt train`")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--fashion", type=Path, default=folders.FASHION, metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("build/recipe"))
    parser.add_argument("--answer", nargs=5, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--plain", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        answer(*options.answer)
        return
    if options.plain:
        config, weights, seconds, seed, file = options.plain
        answer_plain(Path(config), int(weights), float(seconds), int(seed), Path(file))
        return
    options.epochs = options.epochs or (3 if options.quick else None)
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    for part in options.part:
        if part == "novelty":
            print_novelty(find_models(options))
            continue
        methods = options.methods or (CORRUPTION_METHODS if part == "corruptions" else SINGLE_METHODS)
        methods = [method for method in methods if not (options.quick and method in ENSEMBLES)]
        try:
            files = [train_part(part, methods, seed, options) for seed in range(1, 1 + options.seeds)]
        except folders.MissingData as error:
            print(f"\n{part}: left out: {error}", flush=True)
            continue
        if part == "corruptions":
            print_corruptions(files[0])
        else:
            print_scores(part, files)
    print(f"\n{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
