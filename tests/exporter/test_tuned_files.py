"""Tuned draws in every file: a position means the same draw in every format, and other draws are as generated."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from cases import BY_NAME
from exported_cases import make_images, make_targets

from probrt.exporter import export as export_module
from probrt.exporter.bank_tuning import TunedBank
from probrt.exporter.export import ExportRequest, export
from probrt.exporter.reference import Reference
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import Tuning
from probrt.runtime.engines import BUILT_IN
from probrt.trainer import store
from probrt.trainer.model import Model
from probrt.trainer.variational.tuned_draws import TunedDraws

DRAWS, MOVED, SEED = 16, 8, 3
CASES = [
    pytest.param("digits"),
    *(pytest.param(name, marks=pytest.mark.stress) for name in ("layers1d", "layers2d_dynamic", "layers3d", "dense")),
]


def move_noise(model: Model) -> TunedDraws:
    """Other noise for every random weight of every kind of noise, in the first draws of a bank in plain order."""
    random = np.random.default_rng(4)
    noise = {}
    for weight in model.weights:
        shape = (MOVED, *weight.posterior.noise_shape(weight.shape))
        values = random.normal(size=shape) if weight.posterior.noise == "normal" else random.uniform(size=shape)
        noise[weight.id] = tf.Variable(values.astype(np.float32))
    return TunedDraws(SEED, tuple(range(MOVED)), noise)


@pytest.mark.parametrize("name", CASES)
def test_a_position_is_the_same_moved_draw_in_every_format(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate of the export passes, every engine's files give the moved draws, and another seed gives its own."""
    model = BY_NAME[name].model()
    kept, images = make_images(model)
    store.save_model(model, tmp_path / "model", images=kept, targets=make_targets(model, kept), provenance={})
    tuned: list[TunedDraws] = []

    def tune(model: Model, *_: object) -> TunedBank:
        tuned.append(move_noise(model))
        return TunedBank(tuned[0], Tuning(draws=MOVED))

    monkeypatch.setattr(export_module, "tune_bank", tune)
    monkeypatch.setattr(export_module, "choose_bank", lambda *_: export_module.Bank(list(range(DRAWS)), None))
    bundle = export(tmp_path / "model", tmp_path, ExportRequest(draws=DRAWS, seed=SEED)).bundle
    assert bundle.manifest.posterior is not None
    assert bundle.manifest.posterior.tuning == Tuning(draws=MOVED)

    plain = store.load_model(tmp_path / "model")[0].without_auxiliary().without_novelty_map()
    references = {
        "moved": Reference(dataclasses.replace(plain, tuned=tuned[0]), bundle.manifest.heads),
        "generated": Reference(plain, bundle.manifest.heads),
    }
    head = next(iter(bundle.manifest.heads)).name

    def expect(kind: str, seed: int, positions: range) -> np.ndarray:
        draws = references[kind].evaluate_draws(images, seed, list(positions))
        return np.mean([draw[f"{head}.mean"] for draw in draws], axis=0)

    def check(mean: np.ndarray, expected: np.ndarray) -> None:
        np.testing.assert_allclose(mean, expected, rtol=0, atol=1e-4 * max(1.0, float(np.abs(expected).max())))

    first, later = range(MOVED), range(MOVED, DRAWS)
    difference = np.abs(expect("moved", SEED, first) - expect("generated", SEED, first)).max()
    assert difference > 5e-4, "the moved draws must differ, or this test sees nothing"
    for engine in (engine for engine in BUILT_IN if engine.format != "savedmodel" and engine.installed):
        for file, positions in zip(bundle.files(engine.format, "draws"), (first, later), strict=True):
            answer = load(bundle, engine.name, [file])({"images": images})
            check(answer[f"{head}.mean"], expect("moved", SEED, positions))
        if not engine.words:  # has no unsigned words, so cannot make draws
            continue
        graph = load(bundle, engine.name, bundle.files(engine.format, "sampled"))
        for seed, start, kind in ((SEED, 0, "moved"), (SEED, MOVED, "generated"), (SEED + 1, 0, "generated")):
            inputs = {"seed": np.array([seed], np.int32), "start": np.array([start], np.int32)}
            check(graph({"images": images, **inputs})[f"{head}.mean"], expect(kind, seed, range(start, start + MOVED)))
    saved = tf.saved_model.load(str(bundle.path)).signatures["draws"]
    for seed, kind in ((SEED, "moved"), (SEED + 1, "generated")):
        options = {"num_samples": tf.constant([MOVED]), "seed": tf.constant([seed])}
        means = saved(images=tf.constant(images), **options)[f"{head}.mean"].numpy()
        check(means.mean(1), expect(kind, seed, first))


def load(bundle: Bundle, engine: str, files: list) -> object:
    module = next(candidate for candidate in BUILT_IN if candidate.name == engine).load_module()
    return module.load(bundle, files, "cpu", 1)
