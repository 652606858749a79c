"""Tunes the draws of a bank: which, on what, for how long, and whether the bank is better for it.

Each chunk is tuned by itself to the mean and the spread of many other draws (`tuning.py`), so that any number of
chunks has them. The tuned draws are kept only if they beat the chosen ones on images that neither was made on.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from probrt.exporter.bank import Bank
from probrt.exporter.bank_errors import Summary, summarize_draws
from probrt.exporter.bank_images import list_free_images
from probrt.exporter.draw_pool import POOL, compile_draws
from probrt.exporter.exportable import Exportable
from probrt.exporter.tuning import FinalLayers, Noise, Target, cut_final_layers, tune_draws
from probrt.exporter.tuning_images import make_tuning_images
from probrt.runtime.bundle.manifest import HeadRecord, Tuning
from probrt.trainer.model import Model
from probrt.trainer.variational.tuned_draws import TunedDraws

# The time for the targets, and for the chunks; the first chunk is tuned whatever it takes.
SECONDS = 15.0
STEPS = 300
# The first draws of the bank that are tuned: more are good enough as they are.
_DRAWS = 32
# Images of the targets, in groups that have 64 draws each of their own, so that their errors average out.
_IMAGES, _GROUP, _GROUP_DRAWS = 1024, 128, 64
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
    end = clock() + seconds
    noise, distance = _tune_chunks(layers, target, seed, bank.order[:draws], chunk, lambda: clock() < end)
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
        steps=STEPS,
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
    count = min(_IMAGES, _MAX_FEATURES // (chunk * layers.count_read(images[:1])))
    made = make_tuning_images(list_free_images(images), count, low, high)
    evaluate = compile_draws(model, made[:1], seed)
    summaries: dict[str, list[Summary]] = {head.name: [] for head in heads}
    variances: dict[str, list[float]] = {head.name: [] for head in heads}
    done = 0
    while done + _GROUP <= count and in_time():
        first = POOL + done // _GROUP * _GROUP_DRAWS
        pool = evaluate(made[done : done + _GROUP], range(first, first + _GROUP_DRAWS))
        for name, (mean, spread) in summarize_draws(heads, pool, slice(None), range(_GROUP_DRAWS)).items():
            # The spread of n draws is too small by a part 1 / n.
            summaries[name].append((mean, spread * _GROUP_DRAWS / (_GROUP_DRAWS - 1)))
            variances[name].append(float(pool[name][0].var(0).mean()))
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
    return Target(made[:done], joined, units)


def _tune_chunks(
    layers: FinalLayers,
    target: Target,
    seed: int,
    indices: Sequence[int],
    chunk: int,
    in_time: Callable[[], bool],
) -> tuple[Noise, float]:
    """Tunes the first chunk, and the others as long as there is time.

    Returns the moved noise, [draws, …], and the root mean square distance that its values moved.
    """
    chunks: list[Noise] = []
    squares = []
    for first in range(0, len(indices), chunk):
        if chunks and not in_time():
            break
        noise = layers.make_noise(seed, indices[first : first + chunk])
        chunks.append(tune_draws(layers, target, noise, STEPS))
        squares.append(np.concatenate([np.square(values - noise[id]).ravel() for id, values in chunks[-1].items()]))
    joined = {id: np.concatenate([moved[id] for moved in chunks]) for id in chunks[0]}
    return joined, float(np.sqrt(np.mean(np.concatenate(squares))))
