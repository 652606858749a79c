"""Every case through every variant and engine: the same answer as the model under the same handler."""

from __future__ import annotations

import json

import keras
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from cases import CASES, MAPPED, REPRESENTATIVE
from exported_cases import ExportedCase, make_examples

from probrt.exporter import onnx_int8, tflite_int8
from probrt.exporter.formats import BY_PRECISION
from probrt.exporter.reference import Reference
from probrt.runtime.bundle.float_layers import list_float_layers
from probrt.runtime.bundle.manifest import FileRecord, Precision, Variant
from probrt.runtime.engines import BUILT_IN, Engine, Graph
from probrt.runtime.errors import UsageError
from probrt.runtime.predict.predictor import load_predictor
from probrt.trainer.novelty.score import StageDistance
from probrt.trainer.variational.handlers import MeanHandler, use_handler

ENGINES = {engine.name: engine for engine in BUILT_IN}

every_case = pytest.mark.parametrize(
    "case",
    [pytest.param(case.name, marks=[pytest.mark.stress] if case.heavy else []) for case in CASES],
    indirect=True,
)
every_graph_engine = pytest.mark.parametrize("engine", [name for name in ENGINES if name != "tensorflow"])


def load_graph(bundle: ExportedCase, engine: Engine, files: list[FileRecord]) -> Graph:
    return engine.load_module().load(bundle.bundle, files, "cpu", 1)


def close(
    bundle: ExportedCase,
    answer: dict[str, np.ndarray],
    expected: dict[str, np.ndarray],
    precision: Precision = "float32",
) -> None:
    """Checks that the outputs agree to the case's rounding, coarser ones to what the table of precisions allows."""
    tolerance = bundle.rounding if precision == "float32" else BY_PRECISION[precision].tolerance
    assert sorted(answer) == sorted(expected)
    for name, value in expected.items():
        if name.startswith("novelty."):
            continue
        scale = max(1.0, float(np.abs(value).max()))
        np.testing.assert_allclose(answer[name], value, rtol=0, atol=tolerance * scale, err_msg=name)
    if "novelty.score" in expected:
        score, target = answer["novelty.score"], expected["novelty.score"]
        allowed = BY_PRECISION[precision].novelty_tolerance * np.maximum(1.0, np.abs(target))
        np.testing.assert_array_less(np.abs(score - target), allowed)
        np.testing.assert_allclose(answer["novelty.p_value"], compute_p_value(bundle, score), rtol=0, atol=1e-5)
    if "novelty.map" in expected:
        close_maps(answer["novelty.map"], expected["novelty.map"], precision)


def close_maps(scores: np.ndarray, targets: np.ndarray, precision: Precision = "float32") -> None:
    """Checks maps of novelty: next to a prototype the logarithm magnifies rounding, so their mean square counts."""
    assert scores.shape == targets.shape
    relative = (scores - targets) / (BY_PRECISION[precision].map_tolerance * np.maximum(1.0, np.abs(targets)))
    assert np.sqrt(np.square(relative).mean(axis=(1, 2))).max() <= 1
    assert np.abs(relative).max() <= 50


def compute_p_value(bundle: ExportedCase, score: np.ndarray) -> np.ndarray:
    novelty = bundle.model.novelty
    steps = (novelty.scores.astype(np.float64)[None] - score[:, None].astype(np.float64)) / novelty.width + 1
    return (1 + np.clip(steps, 0, 1).sum(axis=1)) / (len(novelty.scores) + 1)


def compute_score(bundle: ExportedCase, images: np.ndarray) -> np.ndarray:
    """The score of novelty by its definition, in float64, from the features of the Keras network."""
    novelty, network = bundle.model.novelty, bundle.model.network
    names = list(dict.fromkeys(ref.layer for ref in novelty.stages))
    with use_handler(MeanHandler()):
        outputs = keras.Model(network.input, {name: network.get_layer(name).output for name in names})(
            images, training=False
        )
    sets: list[list[np.ndarray]] = []
    for ref in novelty.stages:
        values = np.asarray(outputs[ref.layer], np.float64)
        if values.ndim > 2:
            flat = values.reshape(len(values), -1, values.shape[-1])
            by_pooling = {
                "root mean square": np.sqrt(np.square(flat).mean(axis=1)),
                "average": flat.mean(axis=1),
                "maximum": flat.max(axis=1),
            }
            values = by_pooling[ref.pooling]
        sets = [*sets[:-1], [*sets[-1], values]] if ref.joined else [*sets, [values]]
    surprises = []
    for features, distance in zip(sets, novelty.distances, strict=True):
        values = np.concatenate(features, axis=1)
        radii = distance.radii.astype(np.float64)
        surprises.append((square_distances(distance, values) / (2 * radii) + np.log(radii) / 2).min(axis=1))
    score = np.stack(surprises, axis=1) @ novelty.weights - novelty.offset
    return np.where(score > 1, 1 + np.log(np.maximum(score, 1)), score)


def square_distances(distance: StageDistance, values: np.ndarray) -> np.ndarray:
    """The squared distances to the prototypes, with what lies outside the directions, [images, prototypes]."""
    units = np.clip((values - distance.centre) * distance.inverse_deviation, -1e6, 1e6)
    gaps = units @ distance.directions.astype(np.float64)
    inside = (np.square(gaps) * distance.spreads).sum(axis=1)
    outside = distance.residual * np.maximum(np.square(units).sum(axis=1) - inside, 0)
    return np.square(gaps[:, None] - distance.prototypes[None]).sum(axis=2) + outside[:, None]


def compute_log_distance(distance: StageDistance, values: np.ndarray) -> np.ndarray:
    return np.log(square_distances(distance, values).min(axis=1) / values.shape[1] + 1e-4)


def compute_map(bundle: ExportedCase, images: np.ndarray) -> np.ndarray:
    """The novelty of each position by its definition, one position after the other."""
    novelty, network = bundle.model.novelty.map, bundle.model.network
    assert len(novelty.stages) > 1
    with use_handler(MeanHandler()):
        outputs = keras.Model(network.input, [network.get_layer(ref.layer).output for ref in novelty.stages])(
            images, training=False
        )
    features = [np.asarray(output, np.float64) for output in outputs]
    scores = np.empty(features[0].shape[:3])
    for place in np.ndindex(*scores.shape[1:]):
        values = [stage[:, place[0], place[1]] for stage in features]
        logs = [compute_log_distance(*pair) for pair in zip(novelty.distances, values, strict=True)]
        scores[:, place[0], place[1]] = np.stack(logs, axis=1) @ novelty.weights - novelty.offset
    return scores


@every_case
@every_graph_engine
@pytest.mark.parametrize("rows", [1, 3])
def test_files(bundle: ExportedCase, engine: str, rows: int) -> None:
    images = bundle.images[:rows]
    posterior = bundle.bundle.manifest.posterior
    files = [file for file in bundle.bundle.manifest.files if file.format == ENGINES[engine].format]
    assert {file.variant for file in files} == {"mean", "draws", "sampled"}
    for file in files:
        if file.variant == "sampled":
            continue
        if file.precision == "int8" and images.ndim == 3 and not ENGINES[engine].int8_sequences:
            # For the sake of files from before, whose sums were in int8 too; it does run those of today.
            with pytest.raises(UsageError, match="runs no int8 files of one-dimensional inputs"):
                load_predictor(bundle.bundle, engine=engine, precision="int8", variant=file.variant)
        answer = load_graph(bundle, ENGINES[engine], [file])({"images": images})
        if file.variant == "mean":
            expected = bundle.reference.evaluate_mean(images)
            assert not any(name.endswith(("total", "epistemic")) for name in answer)
        else:
            first, count = file.draws
            expected = bundle.reference.combine_draws(images, posterior.seed, posterior.order[first : first + count])
            assert all(answer[f"{head.name}.epistemic"].max() > 0 for head in bundle.model.heads)
        close(bundle, answer, expected, file.precision)


def list_layers(bundle: ExportedCase, variant: Variant, precision: Precision, engine: str) -> list[dict[str, object]]:
    """The manifest's record of the layers that came into question for int8 in a kind of file."""
    key = (variant, precision, ENGINES[engine].format)
    (record,) = [
        record
        for record in bundle.bundle.manifest.provenance.export["int8_layers"]
        if (record["variant"], record["precision"], record["format"]) == key
    ]
    return record["layers"]


@pytest.mark.parametrize("case", REPRESENTATIVE, indirect=True)
@every_graph_engine
@pytest.mark.parametrize("precision", ["dynamic", "int8"])
def test_means_in_int8(bundle: ExportedCase, engine: str, precision: Precision) -> None:
    """There is a file where a layer can be in int8; its layers of few products and final ones are not (test_files)."""
    files = bundle.bundle.files(ENGINES[engine].format, "mean", precision)
    layers = list_layers(bundle, "mean", precision, engine)
    assert bool(files) == any(layer["precision"] == "int8" for layer in layers)
    assert all(layer["precision"] == "float32" for layer in layers if layer["terms"] < 32)
    assert all(("reason" in layer) == (layer["precision"] == "float32") for layer in layers)
    (whole,) = bundle.bundle.files(ENGINES[engine].format, "mean")
    assert all(file.sha256 != whole.sha256 for file in files)


@pytest.mark.parametrize("case", REPRESENTATIVE, indirect=True)
@every_graph_engine
def test_draws_in_int8(bundle: ExportedCase, engine: str) -> None:
    """They spread as the model's draws do, head by head however small its spread, and are the same in every call."""
    files = bundle.bundle.files(ENGINES[engine].format, "draws", "int8")
    layers = list_layers(bundle, "draws", "int8", engine)
    assert bool(files) == any(layer["precision"] == "int8" for layer in layers)
    if not files or (bundle.images.ndim == 3 and not ENGINES[engine].int8_sequences):
        return
    graph = load_graph(bundle, ENGINES[engine], files[:1])
    answer, again = graph({"images": bundle.images}), graph({"images": bundle.images})
    posterior, (first, count) = bundle.bundle.manifest.posterior, files[0].draws
    expected = bundle.reference.combine_draws(bundle.images, posterior.seed, posterior.order[first : first + count])
    for head in bundle.model.heads:
        name = f"{head.name}.epistemic"
        values, targets = answer[name].astype(np.float64), expected[name]
        assert values.max() > 0
        error = np.sqrt(np.square(values - targets).mean() / np.square(targets).mean())
        assert error <= BY_PRECISION["int8"].spread_error, name
        np.testing.assert_array_equal(answer[name], again[name])
    # The features are rounded too: the score moves by up to 0.02 in these cases, and its logarithms have steep places.
    np.testing.assert_allclose(answer["novelty.score"], expected["novelty.score"], rtol=0.05, atol=0.05)


@every_case
@pytest.mark.parametrize("engine", [name for name, engine in ENGINES.items() if engine.words and name != "tensorflow"])
def test_sampled_files(bundle: ExportedCase, engine: str) -> None:
    """Draws made in the graph are those of the model, for every seed and from any position on."""
    files = [file for file in bundle.bundle.files(ENGINES[engine].format) if file.variant == "sampled"]
    graph = load_graph(bundle, ENGINES[engine], files)
    for seed, start in ((3, 0), (2**31 - 1, 11)):
        options = {"seed": np.array([seed], np.int32), "start": np.array([start], np.int32)}
        answer = graph({"images": bundle.images, **options})
        close(bundle, answer, bundle.reference.combine_draws(bundle.images, seed, range(start, start + 8)))


@pytest.fixture(scope="module")
def saved(bundle: ExportedCase) -> Graph:
    return load_graph(bundle, ENGINES["tensorflow"], bundle.bundle.files("savedmodel"))


def options(num_samples: list[int], seed: list[int]) -> dict[str, np.ndarray]:
    return {"num_samples": np.array(num_samples, np.int32), "seed": np.array(seed, np.int32)}


@every_case
def test_savedmodel(bundle: ExportedCase, saved: Graph) -> None:
    images, reference, order = bundle.images, bundle.reference, bundle.bundle.manifest.posterior.order
    close(bundle, saved({"images": images}, "mean"), reference.evaluate_mean(images))
    close(bundle, saved({"images": images}, "serving_default"), reference.combine_draws(images, 0, order))
    close(
        bundle, saved({"images": images, **options([5], [3])}, "sample"), reference.combine_draws(images, 3, range(5))
    )
    draws = reference.evaluate_draws(images, 3, range(5))
    answer = saved({"images": images, **options([5], [3])}, "draws")
    for head in bundle.model.heads:
        name = f"{head.name}.mean"
        np.testing.assert_allclose(
            answer[name], np.stack([draw[name] for draw in draws], 1), rtol=1e-5, atol=bundle.rounding
        )


@every_case
def test_novelty(bundle: ExportedCase, saved: Graph) -> None:
    """Every signature gives the score of the formula, for noise and for images like those that it was fitted to."""
    known = make_examples(bundle.model, 2).images
    for images in (bundle.images, known):
        score = compute_score(bundle, images)
        for signature, more in (
            ("mean", {}),
            ("serving_default", {}),
            ("sample", options([2], [7])),
            ("draws", options([2], [7])),
        ):
            answer = saved({"images": images, **more}, signature)
            allowed = BY_PRECISION["float32"].novelty_tolerance * np.maximum(1.0, np.abs(score))
            np.testing.assert_array_less(np.abs(answer["novelty.score"] - score), allowed)
            np.testing.assert_allclose(
                answer["novelty.p_value"], compute_p_value(bundle, answer["novelty.score"]), rtol=0, atol=1e-5
            )
    single = saved({"images": known[:1]}, "mean")["novelty.p_value"]
    assert single.shape == (1,)
    constant = np.full_like(known[:1], (bundle.model.input.range or (0.0, 1.0))[0])
    assert 1 / 61 <= saved({"images": constant}, "mean")["novelty.p_value"][0] + 1e-6 <= 1


@pytest.mark.parametrize("case", MAPPED, indirect=True)
def test_novelty_maps(bundle: ExportedCase, saved: Graph) -> None:
    """Each position has the score of the formula, in every signature and in images of any size."""
    known = make_examples(bundle.model, 2).images
    for images in (bundle.images, known, np.pad(known[:2], [(0, 0), (0, 3), (0, 5), (0, 0)], mode="edge")):
        expected = compute_map(bundle, images)
        for signature, more in (("mean", {}), ("serving_default", {}), ("sample", options([2], [7]))):
            scores = saved({"images": images, **more}, signature)["novelty.map"]
            assert scores.dtype == np.float32
            close_maps(scores, expected)
    assert abs(np.median(compute_map(bundle, known))) < 0.5


@every_case
def test_seeds(bundle: ExportedCase, saved: Graph) -> None:
    """Equal seeds give equal draws, different seeds different ones, each with spread."""
    images = bundle.images
    first, again, other = (saved({"images": images, **options([4], [seed])}, "draws") for seed in (1, 1, 2))
    for head in bundle.model.heads:
        name = f"{head.name}.mean"
        draws = first[name]
        assert draws.std(axis=1).max() > 0
        np.testing.assert_array_equal(draws, again[name])
        assert np.abs(draws - other[name]).max() > 0


@every_case
def test_rows_stand_alone(bundle: ExportedCase, saved: Graph) -> None:
    """A row's answer depends on its own image, number and seed, whatever its batch-mates are."""
    images = bundle.images
    together = saved({"images": images, **options([3, 7, 2], [4, 0, 4])}, "sample")
    for row, (count, seed) in enumerate([(3, 4), (7, 0), (2, 4)]):
        alone = saved({"images": images[row : row + 1], **options([count], [seed])}, "sample")
        close(bundle, {name: value[row : row + 1] for name, value in together.items()}, alone)


@every_case
def test_bad_rows(bundle: ExportedCase, saved: Graph) -> None:
    """A bad row answers NaN and does not affect the others; an empty batch gives an empty answer."""
    images, input = bundle.images.copy(), bundle.bundle.manifest.input
    wrong = [np.inf, np.nan] + ([] if input.range is None else [input.range[0] - 1, input.range[1] + 1, 1e30])
    calls = {"serving_default": {}, "mean": {}, "sample": options([2], [0]), "draws": options([2], [0])}
    for signature, more in calls.items():
        good = saved({"images": bundle.images, **more}, signature)
        for value in wrong:
            images[1] = bundle.images[1]
            images[1].flat[-1] = value
            for name, answer in saved({"images": images, **more}, signature).items():
                assert np.isnan(answer[1]).all(), (signature, value)
                rounding = bundle.rounding * (20 if name.startswith("novelty.") else 1)
                np.testing.assert_allclose(answer[[0, 2]], good[name][[0, 2]], rtol=1e-5, atol=rounding)
        empty = saved({"images": images[:0], **more}, signature)
        assert all(len(value) == 0 for value in empty.values())
    out_of_range = saved({"images": bundle.images, **options([2, 0, 5000], [0, 0, 0])}, "sample")
    assert [bool(np.isnan(value).any()) for value in out_of_range["digit.mean"]] == [False, True, True]


@every_case
def test_reloaded_model_draws_alike(bundle: ExportedCase) -> None:
    """A model that was saved and loaded gives the draws of the one that was built."""
    built = Reference(bundle.built, bundle.bundle.manifest.heads).evaluate_draws(bundle.images, 9, [0, 77])
    reloaded = bundle.reference.evaluate_draws(bundle.images, 9, [0, 77])
    for before, after in zip(built, reloaded, strict=True):
        for name, value in before.items():
            np.testing.assert_array_equal(value, after[name])


@pytest.mark.parametrize("case", ["digits"], indirect=True)
def test_metadata_of_each_file(bundle: ExportedCase) -> None:
    """Labels, input and outputs are in each file's own metadata."""
    heads = [head.name for head in bundle.bundle.manifest.heads]
    for file in bundle.bundle.manifest.files:
        path = bundle.bundle.path / file.path
        if file.format == "onnx":
            content = {entry.key: entry.value for entry in onnx.load(path).metadata_props}["probrt"]
        elif file.format == "tflite":
            model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(path.read_bytes(), 0))
            entry = next(entry for entry in model.metadata if entry.name == b"probrt")
            content = model.buffers[entry.buffer].data.tobytes()
        else:
            continue
        metadata = json.loads(content)
        assert [head["name"] for head in metadata["heads"]] == heads
        assert metadata["heads"][0]["labels"] == ["a", "b", "c"]
        assert (metadata["variant"], metadata["precision"]) == (file.variant, file.precision)
        assert metadata["input"]["shape"] == [16, 16, 1]
        assert metadata["draws"] == (list(file.draws) if file.draws else None)
    sizes = {file.path: file.bytes for file in bundle.bundle.manifest.files}
    assert sizes["draws-00.fp16.onnx"] < sizes["draws-00.onnx"]


@pytest.mark.parametrize("case", ["digits"], indirect=True)
def test_the_export_says_which_layers_stay_in_float(bundle: ExportedCase) -> None:
    reason = "in float32 stage1_conv1 (sums of only 9 products)"
    kinds = ("mean in dynamic", "mean in int8", "draws in int8")
    assert list_float_layers(bundle.bundle.manifest) == [f"{kind}, tflite and onnx: {reason}" for kind in kinds]


@pytest.mark.parametrize("case", ["digits"], indirect=True)
@pytest.mark.parametrize("value", [0.0, 255.0])
def test_constant_images_make_finite_files_in_int8(bundle: ExportedCase, value: float) -> None:
    """All ranges are then those of one image: others are cut off, which the gate must find, but nothing breaks."""
    constant = np.full((4, *bundle.images.shape[1:]), value, np.float32)
    path = bundle.bundle.path
    files = {tflite_int8: (path / "draws-00.tflite").read_bytes(), onnx_int8: onnx.load(path / "draws-00.onnx")}
    for module, content in files.items():
        measured = module.measure_file(content, constant, 8, [])
        keys = [step.key for step in measured.steps if step.fits]
        assert len(keys) == 6  # three layers, in the draws and in the novelty's pass at the mean
        answer = module.load(module.quantize(content, measured, keys, "int8"))({"images": bundle.images})
        assert all(np.isfinite(values).all() for values in answer.values())
