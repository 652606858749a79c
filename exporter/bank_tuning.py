"""Tunes the draws of a bank: which, on what, for how long, and whether the bank is better for it.

Each chunk is tuned by itself to the mean and the spread of many other draws (`tuning.py`), so that any number of
chunks has them. The tuned draws are kept only if they beat the chosen ones on images that neither was made on.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from probrt.exporter.bank import Bank
from probrt.exporter.bank_errors import Summary, summarize_draws
from probrt.exporter.bank_images import list_free_images
from probrt.exporter.draw_pool import POOL, EvaluateDraws, Pool, compile_draws, size_of_pool
from probrt.exporter.exportable import Exportable
from probrt.exporter.tuning import FinalLayers, Noise, Target, cut_final_layers, tune_draws
from probrt.exporter.tuning_images import make_tuning_images
from probrt.runtime.bundle.manifest import HeadRecord, Tuning
from probrt.trainer.model import Model
from probrt.trainer.variational.tuned_draws import TunedDraws

# The time for the targets, and for the chunks; the first chunk is tuned whatever it takes.
SECONDS = 15.0
# The first draws of the bank that are tuned. With later ones tuned too, each by itself, all together may be worse.
_DRAWS = 16
# Images of the targets, in groups that have 64 draws each of their own, so that their errors average out.
_IMAGES, _GROUP, _GROUP_DRAWS = 1024, 128, 64
STEPS = 300
# Final layers that read vectors take twice as many images and steps, and several draws for each draw of the layers
# before them, from this index on, as far as a group has no more answers than that.
_TIMES = 2
_FINAL_DRAWS, _FINAL_FIRST = 8, 1 << 20
_MAX_ANSWERS = 1 << 25
# Fewer images, or noise of more values, are not tuned: a million values are 4 MB of the SavedModel.
_MIN_IMAGES = 256
_MAX_VALUES = 1 << 20
# What the final layers read in one chunk, in values of 4 bytes.
_MAX_FEATURES = 1 << 26


@dataclass(frozen=True)
class TunedBank:
    """draws: None if the bank stays as it was chosen. record: what the manifest states, and why if so."""

    draws: TunedDraws | None
    record: Tuning


def tune_bank(
    model: Exportable,
    heads: Sequence[HeadRecord],
    images: npt.NDArray[Any],
    bank: Bank,
    seed: int,
    chunk: int,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> TunedBank:
    """Tunes the first draws of a bank; images: raw training images [count, *input.shape], as the bank was chosen on."""
    if bank.trial is None:
        return _keep_bank("nothing was chosen")
    if not isinstance(model, Model):
        return _keep_bank("the model is an ensemble")
    layers = cut_final_layers(model)
    if layers is None:
        return _keep_bank("the final layers read the images themselves")
    if not layers.weights:
        return _keep_bank("the final layers have no random weights of normal noise")
    draws = min(_DRAWS, len(bank.order), _MAX_VALUES // layers.size // chunk * chunk)
    if not draws:
        return _keep_bank(f"the final layers have {layers.size} random values, {chunk} draws of at most {_MAX_VALUES}")
    end = clock() + seconds
    target = _make_target(layers, heads, images, seed, chunk, lambda: clock() < end)
    if target is None:
        return _keep_bank(f"fewer than {_MIN_IMAGES} images were evaluated in {seconds:g} s, or fit the memory")
    end, steps = clock() + seconds, STEPS * (_TIMES if layers.read_vectors else 1)
    noise, distance = _tune_chunks(layers, target, seed, bank.order[:draws], chunk, steps, lambda: clock() < end)
    count = len(next(iter(noise.values())))
    variables = {id: tf.Variable(values, trainable=False) for id, values in noise.items()}
    tuned = TunedDraws(seed, tuple(bank.order[:count]), variables)
    chosen_errors, errors = (
        bank.trial.measure(compile_draws(version, bank.trial.images[:1], seed)(bank.trial.images, bank.order))
        for version in (model, dataclasses.replace(model, tuned=tuned))
    )
    better = bank.trial.is_better(errors, chosen_errors)
    record = Tuning(
        draws=count if better else 0,
        weights=[weight.name for weight in layers.weights],
        distance=float(f"{distance:.3g}"),
        images=len(target.images),
        steps=steps,
        errors=errors,
        reason="" if better else "the tuned draws were no better",
    )
    return TunedBank(tuned if better else None, record)


def _keep_bank(reason: str) -> TunedBank:
    return TunedBank(None, Tuning(draws=0, reason=reason))


def _make_target(
    layers: FinalLayers,
    heads: Sequence[HeadRecord],
    images: npt.NDArray[Any],
    seed: int,
    chunk: int,
    in_time: Callable[[], bool],
) -> Target | None:
    """Evaluates draws that no bank holds on images made of training images; None if there are too few in time."""
    model = layers.model
    low, high = model.input.range or (-np.inf, np.inf)
    wanted = _IMAGES * (_TIMES if layers.read_vectors else 1)
    count = min(wanted, _MAX_FEATURES // (chunk * layers.count_read(images[:1])))
    tuning_images = make_tuning_images(list_free_images(images), count, low, high)
    evaluate = _compile_targets(layers, tuning_images, seed, chunk)
    summaries: dict[str, list[Summary]] = {head.name: [] for head in heads}
    variances: dict[str, list[float]] = {head.name: [] for head in heads}
    done = 0
    while done + _GROUP <= count and in_time():
        first = POOL + done // _GROUP * _GROUP_DRAWS
        pool = evaluate(tuning_images[done : done + _GROUP], range(first, first + _GROUP_DRAWS))
        draws = size_of_pool(pool)
        for name, (mean, spread) in summarize_draws(heads, pool, slice(None), range(draws)).items():
            # The spread is too small by the part that the variance of the mean is of the variance.
            means = pool[name][0].reshape(_GROUP_DRAWS, draws // _GROUP_DRAWS, -1).mean(1)
            of_mean = float(means.var(0, ddof=1).mean()) / _GROUP_DRAWS
            variances[name].append(float(pool[name][0].var(0).mean()) + of_mean)
            summaries[name].append((mean, spread / (1.0 - of_mean / max(variances[name][-1], 1e-30))))
        done += _GROUP
    if done < _MIN_IMAGES:
        return None
    joined = {
        name: (np.concatenate([mean for mean, _ in groups]), np.concatenate([spread for _, spread in groups]))
        for name, groups in summaries.items()
    }
    units = {
        name: (max(np.sqrt(np.mean(variances[name])), 1e-15), max(np.sqrt(np.square(spread).mean()), 1e-15))
        for name, (_, spread) in joined.items()
    }
    return Target(tuning_images[:done], joined, units)


def _compile_targets(layers: FinalLayers, images: npt.NDArray[np.float32], seed: int, chunk: int) -> EvaluateDraws:
    """Returns a function of images and indices that evaluates draws, each with several draws of the final layers.

    Where these read vectors they cost little, and their draws are often most of the spread. Elsewhere one each.
    """
    answers = sum(int(np.prod([side or 1 for side in tensor.shape[1:]])) for tensor in layers.final.outputs)
    draws = min(_FINAL_DRAWS, _MAX_ANSWERS // (_GROUP * _GROUP_DRAWS * answers))
    if draws < 2 or not layers.read_vectors:
        return compile_draws(layers.model, images[:1], seed)
    evaluate = layers.compile_final(seed, draws)

    def evaluate_draws(images: npt.NDArray[np.float32], indices: Iterable[int]) -> Pool:
        indices, parts = list(indices), []
        for place in range(0, len(indices), chunk):  # the graph that a chunk of the bank needs too
            some = indices[place : place + chunk]
            features = layers.read(images, layers.make_noise(seed, some))
            for draw, index in enumerate(some):
                read = [part[:, draw] for part in features]
                parts.append(evaluate(read, tf.constant(_FINAL_FIRST + index * draws)))
        return {
            name: (
                np.concatenate([part[name][0] for part in parts]),
                np.concatenate([part[name][1] for part in parts]),
            )
            for name in parts[0]
        }

    return evaluate_draws


def _tune_chunks(
    layers: FinalLayers,
    target: Target,
    seed: int,
    indices: Sequence[int],
    chunk: int,
    steps: int,
    in_time: Callable[[], bool],
) -> tuple[Noise, float]:
    """Tunes the first chunk, and the others as long as there is time.

    Returns the moved noise, [draws, …], and the root mean square distance that its values moved.
    """
    noises = [layers.make_noise(seed, indices[first : first + chunk]) for first in range(0, len(indices), chunk)]
    chunks: list[Noise] = []
    squares = []
    for noise, moved in zip(noises, tune_draws(layers, target, noises, steps), strict=True):
        chunks.append(moved)
        squares.append(np.concatenate([np.square(values - noise[id]).ravel() for id, values in moved.items()]))
        if not in_time():
            break
    joined = {id: np.concatenate([moved[id] for moved in chunks]) for id in chunks[0]}
    return joined, float(np.sqrt(np.mean(np.concatenate(squares))))
