"""Tunes the draws of a bank: which, on what, for how long, and whether the bank is better for it.

Each chunk is tuned by itself to the mean and the spread of many other draws (`tuning.py`), so that any number of
chunks has them. As many chunks are kept as make the bank best on images that no draw was made on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from probrt.exporter.bank import Bank
from probrt.exporter.bank_errors import Summary, sum_spreads, summarize_draws
from probrt.exporter.bank_images import list_free_images
from probrt.exporter.draw_pool import POOL, EvaluateDraws, Pool, compile_draws, size_of_pool
from probrt.exporter.exportable import Exportable
from probrt.exporter.tuning import DrawAnswers, FinalLayers, Noise, Target, cut_final_layers, tune_draws
from probrt.exporter.tuning_images import make_tuning_images
from probrt.runtime.bundle.manifest import BankError, HeadRecord, Tuning
from probrt.trainer.model import Model
from probrt.trainer.variational.tuned_draws import TunedDraws

# The processor time for the targets, and for the chunks; the first chunk is tuned whatever it takes.
SECONDS = 15.0
# Images of the targets: those on which the draws differ most out of some times as many, by a few draws. They come in
# groups that have 64 draws each of their own, so that their errors average out.
_IMAGES, _CANDIDATES, _TRIAL_DRAWS = 512, 4, 6
_GROUP, _GROUP_DRAWS = 128, 64
_STEPS = 300
# Final layers that read maps take longer: fewer draws are tuned, by fewer steps.
_MAPS_DRAWS, _MAPS_STEPS = 16, 150
# Final layers that read vectors take twice as many images, and several draws for each draw of the layers before them,
# from this index on, as far as a group has no more answers than that.
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
    clock: Callable[[], float] = time.process_time,
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
    most = len(bank.order) if layers.read_vectors else _MAPS_DRAWS
    draws = min(most, len(bank.order), _MAX_VALUES // layers.size // chunk * chunk)
    if not draws:
        return _keep_bank(f"the final layers have {layers.size} random values, {chunk} draws of at most {_MAX_VALUES}")
    target = _make_target(layers, heads, images, seed, chunk, seconds, clock)
    if target is None:
        return _keep_bank(f"fewer than {_MIN_IMAGES} images were evaluated in {seconds:g} s, or fit the memory")
    end = clock() + seconds
    steps = _STEPS if layers.read_vectors else _MAPS_STEPS
    tuned = _tune_chunks(layers, target, bank, seed, draws, chunk, steps, lambda: clock() < end)
    better = bool(tuned.chunks)
    record = Tuning(
        draws=len(tuned.chunks) * chunk,
        weights=[weight.name for weight in layers.weights],
        distance=float(f"{tuned.distance:.3g}"),
        images=len(target.images),
        steps=steps,
        errors=tuned.errors,
        reason="" if better else "the tuned draws were no better",
    )
    if not better:
        return TunedBank(None, record)
    noise = {id: np.concatenate([moved[id] for moved in tuned.chunks]) for id in tuned.chunks[0]}
    variables = {id: tf.Variable(values, trainable=False) for id, values in noise.items()}
    return TunedBank(TunedDraws(seed, tuple(bank.order[: record.draws]), variables), record)


def _keep_bank(reason: str) -> TunedBank:
    return TunedBank(None, Tuning(draws=0, reason=reason))


def _make_target(
    layers: FinalLayers,
    heads: Sequence[HeadRecord],
    images: npt.NDArray[Any],
    seed: int,
    chunk: int,
    seconds: float,
    clock: Callable[[], float],
) -> Target | None:
    """Evaluates draws that no bank holds on images made of training images; None if there are too few in time.

    At most a quarter of the time goes to find those on which the draws differ most.
    """
    model, start = layers.model, clock()
    low, high = model.input.range or (-np.inf, np.inf)
    wanted = _IMAGES * (_TIMES if layers.read_vectors else 1)
    count = min(wanted, _MAX_FEATURES // (chunk * layers.count_read(images[:1])))
    candidates = make_tuning_images(list_free_images(images), _CANDIDATES * count, low, high)
    evaluate = _compile_targets(layers, candidates, seed, chunk)
    pools, first = [], 0
    while first < len(candidates) and (first < count or clock() < start + seconds / 4):
        pools.append(evaluate(candidates[first : first + _GROUP], range(POOL, POOL + _TRIAL_DRAWS)))
        first += _GROUP
    chosen = np.sort(np.argsort(-sum_spreads(heads, pools), kind="stable")[:count])
    tuning_images = candidates[chosen]
    summaries: dict[str, list[Summary]] = {head.name: [] for head in heads}
    variances: dict[str, list[float]] = {head.name: [] for head in heads}
    done = 0
    while done + _GROUP <= count and clock() < start + seconds:
        first = POOL + _TRIAL_DRAWS + done // _GROUP * _GROUP_DRAWS
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


@dataclass(frozen=True)
class _TunedChunks:
    """chunks: the moved noise of each that is kept. distance: the root mean square that values moved, of all tried.

    errors: of the bank with these chunks, or with all that were tried where none is kept.
    """

    chunks: list[Noise]
    distance: float
    errors: list[BankError]


def _tune_chunks(
    layers: FinalLayers,
    target: Target,
    bank: Bank,
    seed: int,
    draws: int,
    chunk: int,
    steps: int,
    in_time: Callable[[], bool],
) -> _TunedChunks:
    """Tunes the first chunk, and the others as long as there is time; keeps as many as make the bank best."""
    trial, answers = bank.trial, bank.answers
    assert trial is not None
    assert answers is not None
    noises = [layers.make_noise(seed, bank.order[first : first + chunk]) for first in range(0, draws, chunk)]
    chunks: list[Noise] = []
    squares = []
    errors = [trial.measure(answers)]
    for noise, moved in zip(noises, tune_draws(layers, target, noises, steps), strict=True):
        squares.append(np.concatenate([np.square(values - noise[id]).ravel() for id, values in moved.items()]))
        tuned = layers.answer_draws(layers.read(trial.images, noise), {**noise, **moved})
        answers = _replace_draws(answers, len(chunks) * chunk, tuned)
        chunks.append(moved)
        errors.append(trial.measure(answers))
        if not in_time():
            break
    # The later chunks were chosen to make up for the first ones as these were, so a chunk may help only with the next.
    kept = int(np.argmin([trial.sum_errors(measured, count * chunk) for count, measured in enumerate(errors)]))
    distance = float(np.sqrt(np.mean(np.concatenate(squares))))
    return _TunedChunks(chunks[:kept], distance, errors[kept or -1])


def _replace_draws(answers: Pool, start: int, draws: DrawAnswers) -> Pool:
    """Returns the answers with those of some draws in the places from `start` on."""

    def replace(values: npt.NDArray[np.float32], tensor: tf.Tensor) -> npt.NDArray[np.float32]:
        return np.concatenate([values[:start], tensor.numpy(), values[start + len(tensor) :]])

    return {
        name: (replace(mean, draws[name][0]), replace(other, draws[name][1])) for name, (mean, other) in answers.items()
    }
