"""Tuning draws: against an exact posterior in closed form, on images not seen before, and where it is left out."""

from __future__ import annotations

import dataclasses
from itertools import count

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import BY_NAME, DIGIT, SLANT, layered

from probrt.exporter import bank_tuning
from probrt.exporter.bank import Bank, choose_bank
from probrt.exporter.bank_images import count_images, list_free_images, make_bank_images
from probrt.exporter.draw_pool import compile_draws
from probrt.exporter.ensemble import Ensemble
from probrt.exporter.records import make_head_records
from probrt.exporter.tuning import Target, cut_final_layers, tune_draws
from probrt.exporter.tuning_images import make_tuning_images
from probrt.trainer import layers
from probrt.trainer.model import Model
from probrt.trainer.variational.random_weight import make_noise
from probrt.trainer.variational.tuned_draws import TunedDraws

DRAWS, CHUNK = 16, 8


def make_images(shape: list[int], count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, *shape)).astype(np.float32)


def make_waves(count: int, seed: int) -> np.ndarray:
    """Images of 8 by 8 that have something in common, as real ones do: waves of random length, direction and phase."""
    random = np.random.default_rng(seed)
    rows, columns, phases = random.uniform(-1, 1, (3, count, 1, 1, 2)) * np.reshape([1.0, 1.0, np.pi], (3, 1, 1, 1, 1))
    places = np.arange(8)
    waves = np.sin(rows * places[:, None, None] + columns * places[None, :, None] + phases)
    return waves.astype(np.float32)


@pytest.fixture(scope="module")
def model() -> Model:
    """Random convolutions before random final layers."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)

    def body(images: keras.KerasTensor) -> keras.KerasTensor:
        wide = {"name": "normal", "initial_scale": 0.3}
        features = keras.layers.Flatten()(
            layers.Conv2D(6, 3, activation="relu", kernel_posterior=wide, name="conv")(images)
        )
        return layers.Dense(24, activation="relu", kernel_posterior=wide, name="hidden")(features)

    final = {"name": "normal", "initial_scale": 0.3}
    return layered(
        "small",
        [8, 8, 2],
        [DIGIT, SLANT],
        body,
        lambda filters: layers.Dense(filters, kernel_posterior=final, name="final"),
    )


def test_tuned_draws_of_a_linear_model_have_the_exact_mean_and_variance() -> None:
    """Mean and variance of x w + b for normal w are linear and quadratic in x: known without a draw.

    Four features leave 8 draws enough room for both. On new images the errors are below those of 128 independent draws,
    whose mean is off by sqrt(1 / 128) deviations and whose variance by sqrt(2 / 128) of itself.
    """
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(2)
    linear = layered(
        "linear",
        [6],
        [SLANT],
        keras.layers.Dense(4, activation="tanh"),
        lambda filters: layers.Dense(filters, kernel_posterior={"name": "normal", "initial_scale": 0.5}, name="final"),
    )
    cut = cut_final_layers(linear)
    assert cut is not None
    (weight,) = cut.weights
    loc, scale = weight.mean().numpy()[:, 0], weight.scale().numpy()[:, 0]

    def solve(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        (features,) = (values.numpy() for values in tf.nest.flatten(cut.before(images)))
        return 3.0 + 0.5 * (features @ loc)[:, None], 0.25 * (features**2 @ scale**2)[:, None]

    def measure(noise: dict[int, tf.Tensor]) -> tuple[float, float]:
        images = make_images([6], 300, 1)
        (mean, variance), (exact_mean, exact) = cut.answer(cut.read(images, noise), noise)["slant"], solve(images)
        off = float(np.sqrt(np.square(mean - exact_mean).mean() / exact.mean()))
        return off, float(np.sqrt(np.square(variance - exact).mean() / np.square(exact).mean()))

    images = make_images([6], 512, 0)
    mean, variance = solve(images)
    units = {"slant": (float(np.sqrt(variance.mean())), float(np.sqrt(np.square(variance).mean())))}
    noise = cut.make_noise(0, range(8))
    (moved,) = tune_draws(cut, Target(images, {"slant": (mean, variance)}, units), [noise], 300)
    untuned, tuned = measure(noise), measure({id: tf.constant(values) for id, values in moved.items()})
    assert untuned[0] > 0.15
    assert untuned[1] > 0.15
    assert tuned[0] < np.sqrt(1 / 128)
    assert tuned[1] < np.sqrt(2 / 128)
    np.testing.assert_allclose(np.square(moved[weight.id]).mean(), np.square(noise[weight.id]).mean(), rtol=0.3)


@pytest.mark.parametrize("kernel", [1, 3])
def test_final_layers_of_one_position_read_averages(kernel: int) -> None:
    """Their answers are those of the whole network; a larger kernel weighs the border differently, and reads all."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(1)
    convolutional = layered(
        "convolutional",
        [6, 6, 2],
        [DIGIT, SLANT],
        layers.Conv2D(4, 3, activation="relu", name="conv"),
        lambda filters: layers.Conv2D(filters, kernel, padding="same", name="final"),
    )
    cut = cut_final_layers(convolutional)
    assert cut is not None
    images = make_images([6, 6, 2], 5, 0)
    assert cut.read_vectors == (kernel == 1)
    assert cut.count_read(images[:1]) == (4 if kernel == 1 else 4 * 36)
    noise = cut.make_noise(3, range(8))
    answers = cut.answer(cut.read(images, noise), noise)
    pool = compile_draws(convolutional, images, 3)(images, range(8))
    for head in (DIGIT, SLANT):
        np.testing.assert_allclose(answers[head.name][0], pool[head.name][0].mean(0), atol=1e-5)
    np.testing.assert_allclose(answers["slant"][1], pool["slant"][0].var(0), atol=1e-5)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer draws for each group of images of the targets, and fewer steps: what a small model needs."""
    monkeypatch.setattr(bank_tuning, "_GROUP_DRAWS", 48)
    monkeypatch.setattr(bank_tuning, "_STEPS", 150)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_a_tuned_bank_beats_the_chosen_one_on_images_of_neither(model: Model) -> None:
    """Eight tuned draws are worth half as much again as the chosen ones, by the measure of the export."""
    images = make_waves(240, 3)
    heads = make_head_records(model)
    ticks = count()
    # The clock ticks once per draw: a pool of 300.
    chosen = choose_bank(model, heads, images, 5, DRAWS, CHUNK, seconds=300, clock=lambda: next(ticks))
    assert chosen.yardstick is not None
    tuned = bank_tuning.tune_bank(model, heads, images, chosen, 5, CHUNK, clock=lambda: 0.0)
    assert tuned.draws is not None
    assert tuned.record.draws == DRAWS
    assert tuned.record.weights == ["final/kernel"]
    assert 0.05 < tuned.record.distance < 1.0
    assert [(error.draws, error.images) for error in tuned.record.errors] == [
        (draws, name) for draws in (8, 16) for name in ("training", "shifted")
    ]
    worth = []
    for version in (model, dataclasses.replace(model, tuned=tuned.draws)):
        answers = compile_draws(version, images[:1], 5)(chosen.yardstick.images, chosen.order)
        tuned_draws = 0 if version is model else DRAWS
        worth.append(chosen.yardstick.measure_draws(answers, CHUNK, tuned_draws).effective)
    assert worth[1] > 3 / 2 * worth[0]
    # Fresh images and another pool, which no part of the export has seen.
    fresh = make_waves(60, 4)
    pool = compile_draws(model, images[:1], 99)(fresh, range(400))
    exact = pool["slant"][0].mean(0)
    errors = []
    for version in (model, dataclasses.replace(model, tuned=tuned.draws)):
        mean = compile_draws(version, images[:1], 5)(fresh, chosen.order[:CHUNK])["slant"][0].mean(0)
        errors.append(np.sqrt(np.square(mean - exact).mean()))
    assert errors[1] < errors[0]


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_a_tuned_bank_that_is_no_better_is_not_kept(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    images, heads, ticks = make_waves(240, 3), make_head_records(model), count()
    chosen = choose_bank(model, heads, images, 5, CHUNK, CHUNK, seconds=100, clock=lambda: next(ticks))
    monkeypatch.setattr(
        bank_tuning,
        "tune_draws",
        lambda layers, target, chunks, steps: (
            {w.id: 3 * noise[w.id].numpy() for w in layers.weights} for noise in chunks
        ),
    )
    tuned = bank_tuning.tune_bank(model, heads, images, chosen, 5, CHUNK, clock=lambda: 0.0)
    assert tuned.draws is None
    assert tuned.record.draws == 0
    assert tuned.record.reason == "the tuned draws were no better"
    assert tuned.record.errors


def test_reasons_to_leave_a_bank_as_it_is(model: Model) -> None:
    images, heads, ticks = make_waves(240, 3), make_head_records(model), count()
    chosen = choose_bank(model, heads, images, 5, CHUNK, CHUNK, seconds=60, clock=lambda: next(ticks))

    def reason(model: Model | Ensemble, bank: Bank = chosen) -> str:
        tuned = bank_tuning.tune_bank(model, heads, images, bank, 5, CHUNK, seconds=-1.0)
        assert tuned.draws is None
        return tuned.record.reason

    assert reason(model, Bank([0], None)) == "nothing was chosen"
    assert reason(Ensemble("pair", (model, model))) == "the model is an ensemble"
    assert reason(BY_NAME["conv2d_random_bias"].model()) == "the final layers have no random weights of normal noise"
    linear = layered("linear", [6], [SLANT], lambda images: images, lambda filters: layers.Dense(filters, name="final"))
    assert reason(linear) == "the final layers read the images themselves"
    assert reason(model).startswith("fewer than 256 images were evaluated")


@pytest.mark.parametrize("shape", [[6], [12, 2], [8, 9, 3], [4, 5, 6, 1]])
def test_tuning_images(shape: list[int]) -> None:
    """Of the images' shape and range, unlike each other, always the same, and none of what the bank is measured on."""
    images = make_images(shape, 90, 0)
    made = make_tuning_images(images, 64, -0.9, 0.9)
    assert made.shape == (64, *shape)
    assert made.dtype == np.float32
    assert -0.9 <= made.min() <= made.max() <= np.float32(0.9)
    assert len(np.unique(made.reshape(64, -1), axis=0)) > 60
    np.testing.assert_array_equal(made, make_tuning_images(images, 64, -0.9, 0.9))
    free = {image.tobytes() for image in list_free_images(images)}
    sets = make_bank_images(images, -1.0, 1.0, lambda candidates: candidates.reshape(len(candidates), -1).mean(1))
    reserved = {image.tobytes() for image in (*sets.kept_on[0], *sets.measured_on[0])}
    assert len(reserved) == count_images(images) * 3 // 2
    assert not free & reserved
    assert free == {image.tobytes() for image in images[0::3]}


def test_moved_noise_takes_the_place_of_its_own_draws_alone(model: Model) -> None:
    """Other draws, other seeds and other weights have the noise that they had."""
    final = next(weight for weight in model.weights if weight.name.startswith("final"))
    shape = final.posterior.noise_shape(final.shape)
    table = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    tuned = TunedDraws(7, (40, 9), {final.id: tf.Variable(table)})
    indices = tf.constant([9, 8, 40])
    for seed in (7, 8):
        noise = make_noise(model.weights, seed, indices)
        replaced = tuned.replace_noise(noise, tf.constant(seed), indices)
        for weight in model.weights:
            expected = noise[weight.id].numpy()
            if weight is final and seed == 7:
                expected[0], expected[2] = table[1], table[0]
            np.testing.assert_array_equal(replaced[weight.id], expected)
        for place, index in enumerate((9, 8, 40)):
            found = tuned.find_noise(seed, index)
            assert bool(found) == (seed == 7 and index != 8)
            if found:
                np.testing.assert_array_equal(found[final.id], replaced[final.id][place])
