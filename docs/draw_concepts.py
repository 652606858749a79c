"""Draws the pictures of docs/concepts.md from a small model of real digits: python docs/draw_concepts.py

Trains for about a minute on the 1,797 scanned digits of scikit-learn, and writes docs/concepts/*.png and the table of
the page.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image
from rich.console import Console
from sklearn.datasets import load_digits

from probrt.trainer import data, store
from probrt.trainer.config.config import load_config
from probrt.trainer.data import Examples
from probrt.trainer.evaluate.answers import Answers, NoveltyValues, compute_answers, compute_novelty
from probrt.trainer.model import Model
from probrt.trainer.train import train_model
from probrt.trainer.variational.handlers import DrawHandler, use_handler

DOCS = Path(__file__).parent
START, END = "<!-- table -->", "<!-- end of table -->"
_DRAWS, _STEPS, _BINS = 32, 41, 10
_CONFIG = """
name = "concepts"
data = {{ folder = "photos", validation = 0.2, test = 0.3, shift = 1 }}
input = {{ shape = [32, 32, 1], colour = "grey", resize = "none", range = [0, 255] }}
heads = [{{ name = "digit", likelihood = "categorical", labels = {labels} }}]
backbone = {{ name = "conv", widths = [16, 32] }}
fit = {{ epochs = {epochs}, batch = 64 }}
"""


def make_model(folder: Path, epochs: int) -> tuple[Model, Examples]:
    """Writes the digits into class folders, trains on them, and returns the model and its test split."""
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        home = folder / "photos" / str(label)
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15).astype("uint8")).resize((32, 32)).save(home / f"{number:04d}.png")
    config = folder / "config.toml"
    config.write_text(_CONFIG.format(labels=[str(label) for label in range(10)], epochs=epochs))
    train_model(config, folder / "model", Console(file=io.StringIO()))
    model, _ = store.load_model(folder / "model")
    return model, data.read_dataset(load_config(config), folder).splits["test"]


def as_examples(images: np.ndarray) -> Examples:
    """Returns images [n, 32, 32, 1] as examples without targets."""
    return Examples(tuple(map(str, range(len(images)))), images.astype(np.float32), {})


def answer(model: Model, examples: Examples, *, targets: bool = False) -> Answers:
    """Returns the answers of the one head over all draws."""
    return compute_answers(model, examples, seed=0, draws=_DRAWS, targets=targets)["digit"]


def draw_probabilities(model: Model, images: np.ndarray) -> np.ndarray:
    """Returns each draw's class probabilities [draws, n, classes]."""
    means = []
    for index in range(_DRAWS):
        with use_handler(DrawHandler(0, index)):
            moments = model.moments(tf.constant(images, tf.float32))
        means.append(moments["digit"].mean.numpy())
    return np.stack(means)


def blend(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns pictures from the first to the second one [steps, 32, 32, 1]."""
    share = np.linspace(0, 1, _STEPS)[:, None, None, None]
    return (1 - share) * first + share * second


def choose_sure(answers: Answers, labels: np.ndarray, digit: int) -> int:
    """Returns the row of the digit that the model is surest and right about."""
    right = (answers.mean.argmax(1) == labels) & (labels == digit)
    return int(np.flatnonzero(right)[answers.total[right].argmin()])


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns the expected calibration error, and per bin confidence, accuracy and count [bins, 3]."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    rows = np.array([[confidence[bins == b].mean(), right[bins == b].mean(), (bins == b).sum()] for b in set(bins)])
    return float((np.abs(rows[:, 0] - rows[:, 1]) * rows[:, 2]).sum() / len(labels)), rows


def make_strangers(images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns pictures that are no digits as in training, by name."""
    noise = np.random.default_rng(5).uniform(0, 255, images.shape)
    return {"upside down, negative": 255 - images[:, ::-1], "turned": np.rot90(images, axes=(1, 2)), "noise": noise}


def draw_pictures(model: Model, test: Examples, folder: Path) -> dict[str, str]:
    """Writes the four pictures and returns the rows of the table by what they tell."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    folder.mkdir(parents=True, exist_ok=True)
    labels = test.targets["digit"].reshape(len(test))
    answers = answer(model, test, targets=True)
    first, second = (test.images[choose_sure(answers, labels, digit)].astype(float) for digit in (3, 8))
    path, share = blend(first, second), np.linspace(0, 1, _STEPS)

    def save(figure: Any, name: str) -> None:
        figure.savefig(folder / f"{name}.png", dpi=90)
        plt.close(figure)

    # Draws: the probability of an 8 along the way from a 3.
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.8), width_ratios=(3, 1), layout="constrained")
    probabilities = draw_probabilities(model, path)[:, :, 8]
    left.plot(share, probabilities.T, color="tab:blue", alpha=0.25, linewidth=0.8)
    left.plot(share, probabilities.mean(0), color="black", linewidth=2, label=f"mean of {_DRAWS} draws")
    left.set(xlabel="share of the 8 in the picture", ylabel="probability of an 8")
    left.legend(frameon=False, loc="upper left")
    right.imshow(np.concatenate([path[0], path[_STEPS // 2], path[-1]])[..., 0], cmap="gray")
    right.axis("off")
    save(figure, "draws")

    # Aleatoric and epistemic: along the same way, and from the 3 to noise.
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.8), sharey=True, layout="constrained")
    noise = np.random.default_rng(5).uniform(0, 255, first.shape)
    parts = {}
    for axis, (name, images) in zip(axes, {"an 8": path, "noise": blend(first, noise)}.items(), strict=True):
        parts[name] = along = answer(model, as_examples(images))
        axis.stackplot(share, along.aleatoric, along.epistemic, labels=("aleatoric", "epistemic"), alpha=0.8)
        axis.set(xlabel=f"share of {name} in the picture of a 3")
    axes[0].set_ylabel("nats")
    axes[0].legend(frameon=False, loc="upper left")
    save(figure, "parts")

    # Calibration: before and after the temperature.
    figure, axis = plt.subplots(figsize=(3.6, 3.2), layout="constrained")
    plain = answer(dataclasses.replace(model, calibration=()), test)
    errors = {}
    for name, values in {"before": plain, "after": answers}.items():
        errors[name], rows = calibration_error(values.mean, labels)
        axis.plot(rows[:, 0], rows[:, 1], "o-", label=f"{name}: error {errors[name]:.3f}")
    axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    axis.set(xlabel="confidence", ylabel="share of right answers", xlim=(0, 1.02), ylim=(0, 1.02))
    axis.legend(frameon=False, loc="lower right")
    save(figure, "calibration")

    # Novelty: held-out digits and strangers.
    figure, axis = plt.subplots(figsize=(8, 2.6), layout="constrained")
    inside = _novelty(model, test)
    unknown = {"held-out digits": float((inside.p_value <= 0.01).mean())}
    scores = {"held-out digits": inside.score}
    for name, images in make_strangers(test.images.astype(float)).items():
        values = _novelty(model, as_examples(images))
        scores[name], unknown[name] = values.score, float((values.p_value <= 0.01).mean())
    edges = np.linspace(min(map(np.min, scores.values())), np.quantile(np.concatenate(list(scores.values())), 0.99), 60)
    for name, values in scores.items():
        axis.hist(
            np.minimum(values, edges[-1]), edges, alpha=0.6, density=True, label=f"{name}: {unknown[name]:.0%} unknown"
        )
    axis.set(xlabel="novelty score", yticks=[])
    axis.legend(frameon=False)
    save(figure, "novelty")

    middle = _STEPS // 2
    return {
        "test digits, accuracy": f"{(answers.mean.argmax(1) == labels).mean():.1%}",
        "half a 3, half an 8: aleatoric, epistemic, nats": _format_parts(parts["an 8"], middle),
        "noise alone: aleatoric, epistemic, nats": _format_parts(parts["noise"], -1),
        "calibration error before and after the temperature": f"{errors['before']:.3f}, {errors['after']:.3f}",
        **{f"unknown at 1 %: {name}": f"{value:.1%}" for name, value in unknown.items()},
    }


def _novelty(model: Model, examples: Examples) -> NoveltyValues:
    novelty = compute_novelty(model, examples)
    assert novelty is not None
    return novelty


def _format_parts(answers: Answers, row: int) -> str:
    return f"{answers.aleatoric[row]:.2f}, {answers.epistemic[row]:.2f}"


def write_table(page: str, rows: dict[str, str]) -> str:
    """Returns the page with a new table."""
    lines = [
        "| of the model of these pictures | |",
        "|---|---|",
        *(f"| {what} | {value} |" for what, value in rows.items()),
    ]
    before, rest = page.split(START)
    return f"{before}{START}\n\n" + "\n".join(lines) + f"\n\n{END}{rest.split(END)[1]}"


def main() -> None:
    """Draws all pictures and writes the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--out", type=Path, default=DOCS / "concepts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model, test = make_model(Path(scratch), options.epochs)
    rows = draw_pictures(model, test, options.out)
    for what, value in rows.items():
        print(f"{what}: {value}")
    page = DOCS / "concepts.md"
    if options.out == DOCS / "concepts":
        page.write_text(write_table(page.read_text(encoding="utf-8"), rows), encoding="utf-8")


if __name__ == "__main__":
    main()
