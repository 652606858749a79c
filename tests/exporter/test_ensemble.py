"""Deep ensembles: every chunk and signature against the members, evaluated one by one."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import keras
import msgspec
import numpy as np
import pytest
from cases import BY_NAME, DIGIT, SLANT, layered
from processes import probrt

from probrt.exporter.export import export
from probrt.exporter.plan import ExportRequest
from probrt.exporter.reference import NamedArrays, Reference
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import Calibration, Conformal, FileRecord
from probrt.runtime.engines import Graph, engines
from probrt.runtime.errors import UsageError
from probrt.runtime.predict.combine import combine_chunks
from probrt.trainer import heads, layers, store
from probrt.trainer.model import Model

ENGINES = {"tflite": "litert", "onnx": "onnxruntime", "savedmodel": "tensorflow"}
# Float32 graphs on outputs near 1: sums of another order.
TOLERANCE = 1e-5


def save_model(model: Model, folder: Path, note: str) -> Path:
    images = np.random.default_rng(1).uniform(-1, 1, (4, *model.input.shape)).astype(np.float32)
    store.save_model(model, folder, images=images, provenance={"note": note})
    return folder


def make_bayesian(seed: int) -> Model:
    """A member with its own initial weights, calibration and standardisation of the targets."""
    keras.utils.set_random_seed(seed)
    model = BY_NAME["conv2d_random_bias"].make()
    slant = msgspec.structs.replace(SLANT, centre=[3.0 + seed], spread=[0.5 + seed])
    threshold = Conformal(coverage=0.9, method="lac", threshold=0.5)
    calibration = (Calibration(head="digit", temperature=1.0 + seed, conformal=[threshold]),)
    return dataclasses.replace(model, heads=(DIGIT, slant), calibration=calibration)


def make_plain(seed: int) -> Model:
    """A member without random weights."""
    keras.utils.set_random_seed(seed)

    def layer(filters: int) -> layers.Conv2D:
        return layers.Conv2D(filters, 3, kernel_posterior=None, activation="tanh")

    return layered("plain", [8, 8, 2], [DIGIT, SLANT], layer(4), layer)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    home = tmp_path_factory.mktemp("members")
    return [save_model(make_bayesian(seed), home / f"member{seed}", f"seed {seed}") for seed in (0, 1)]


@pytest.fixture(scope="module")
def bundle(folders: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Two members with random weights, exported as a user does it."""
    home = tmp_path_factory.mktemp("ensemble")
    done = probrt("export", *folders, "--name", "pair", "--draws", 16, "--seed", 4, cwd=home)
    assert done.returncode == 0, done.stderr
    return Bundle.open(home / "artifacts" / "pair")


@pytest.fixture(scope="module")
def members(folders: list[Path], bundle: Bundle) -> list[Reference]:
    """Each member alone."""
    return [Reference(store.load_model(folder)[0], bundle.manifest.heads) for folder in folders]


IMAGES = np.random.default_rng(9).uniform(-1, 1, (3, 8, 8, 2)).astype(np.float32)


def combine_members(bundle: Bundle, members: Sequence[Reference], seed: int, indices: Sequence[int]) -> NamedArrays:
    """Combines the draws of these indices, each from the member that it belongs to, by the law of total variance."""
    sums = {head.name: combine_chunks(head) for head in bundle.manifest.heads}
    for index in indices:
        (draw,) = members[index % len(members)].evaluate_draws(IMAGES, seed, [index])
        for name, total in sums.items():
            total.add({**draw, f"{name}.epistemic": np.zeros_like(draw[f"{name}.aleatoric"])}, 1)
    return {f"{name}.{key}": value for name, total in sums.items() for key, value in total.combine().items()}


def average_means(members: Sequence[Reference]) -> NamedArrays:
    answers = [member.evaluate_mean(IMAGES) for member in members]
    return {name: np.mean([answer[name] for answer in answers], axis=0) for name in answers[0]}


@functools.cache
def load_graph(path: Path, file_name: str) -> Graph:
    bundle = Bundle.open(path)
    files = [file for file in bundle.manifest.files if file.path == file_name]
    engine = next(engine for engine in engines() if engine.name == ENGINES[files[0].format])
    if files[0].format == "savedmodel":
        files = list(bundle.files("savedmodel"))
    return engine.load_module().load(bundle, files, "cpu", 1)


def run(bundle: Bundle, files: Sequence[FileRecord], signature: str = "", **options: int) -> NamedArrays:
    """Runs a graph file, or a signature of the SavedModel, on IMAGES."""
    graph = load_graph(bundle.path, files[0].path)
    inputs = {name: np.array([value], np.int32) for name, value in options.items()}
    return graph({"images": IMAGES, **inputs}, *([signature] if signature else []))


def close(answer: NamedArrays, expected: NamedArrays) -> None:
    assert set(answer) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(answer[name], value, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)


def test_bank_files(bundle: Bundle, members: list[Reference]) -> None:
    posterior, graphs = (
        bundle.manifest.posterior,
        [file for file in bundle.manifest.files if file.format != "savedmodel"],
    )
    assert sorted(file.path for file in graphs) == sorted(
        f"{name}.{format}" for name in ("mean", "draws-00", "draws-01") for format in ("tflite", "onnx")
    )
    assert {index % 2 for index in posterior.order[:8]} == {0, 1}
    for file in graphs:
        if file.draws is None:
            close(run(bundle, [file]), average_means(members))
        else:
            first, count = file.draws
            close(run(bundle, [file]), combine_members(bundle, members, 4, posterior.order[first : first + count]))


def test_savedmodel(bundle: Bundle, members: list[Reference]) -> None:
    files, order = bundle.files("savedmodel"), bundle.manifest.posterior.order
    bank = run(bundle, files, "serving_default")
    close(bank, combine_members(bundle, members, 4, order))
    close(run(bundle, files, "mean"), average_means(members))
    close(run(bundle, files, "sample", num_samples=5, seed=7), combine_members(bundle, members, 7, range(5)))
    close(run(bundle, files, "sample", num_samples=9, seed=4), combine_members(bundle, members, 4, order[:9]))
    draws = run(bundle, files, "draws", num_samples=3, seed=7)["digit.mean"]
    for index in range(3):
        alone = members[index % 2].evaluate_draws(IMAGES, 7, [index])[0]["digit.mean"]
        np.testing.assert_allclose(draws[:, index], alone, rtol=TOLERANCE, atol=TOLERANCE)
    # The members' standardisations lie far apart, so that none of them alone has this spread.
    for member in members:
        assert bank["slant.epistemic"].mean() > member.combine_draws(IMAGES, 4, order)["slant.epistemic"].mean()


def test_manifest(bundle: Bundle) -> None:
    assert bundle.manifest.model.name == "pair"
    assert bundle.manifest.calibration == []
    training = bundle.manifest.provenance.training["members"]
    assert [member["provenance"] for member in training] == [{"note": "seed 0"}, {"note": "seed 1"}]
    assert [member["calibration"][0]["temperature"] for member in training] == [1.0, 2.0]


def test_members_without_random_weights(tmp_path: Path) -> None:
    """The classic deep ensemble: the members are the draws, one each, in one chunk."""
    folders = [save_model(make_plain(seed), tmp_path / f"plain{seed}", "") for seed in range(3)]
    result = export(
        folders[0], tmp_path / "artifacts", ExportRequest(formats=("savedmodel", "onnx"), members=tuple(folders[1:]))
    ).bundle
    posterior = result.manifest.posterior
    assert (posterior.order, posterior.chunk, posterior.samples, posterior.max_samples) == ([0, 1, 2], 3, 3, 3)
    members = [Reference(store.load_model(folder)[0], result.manifest.heads) for folder in folders]
    expected = combine_members(result, members, 0, range(3))
    assert expected["digit.epistemic"].min() > 0
    for format, signature in (("onnx", ""), ("savedmodel", "serving_default")):
        files = [file for file in result.files(format) if format == "savedmodel" or file.draws == (0, 3)]
        close(run(result, files, signature), expected)
    close(
        run(result, result.files("savedmodel"), "sample", num_samples=2, seed=5),
        combine_members(result, members, 5, range(2)),
    )
    with pytest.raises(UsageError, match="--draws 8: an ensemble without random weights has 3 draws"):
        export(folders[0], tmp_path / "artifacts", ExportRequest(draws=8, members=tuple(folders[1:])))


def test_models_that_make_no_ensemble(folders: list[Path], tmp_path: Path) -> None:
    other = dataclasses.replace(make_bayesian(2), calibration=())
    labels = msgspec.structs.replace(DIGIT, labels=["a", "b", "z"])
    wide = msgspec.structs.replace(other.input, range=(-2.0, 2.0))
    text = layered("text", [8, 8, 2], [DIGIT], lambda images: images, lambda width: layers.Conv2D(width, 1))
    mixed = [DIGIT, heads.Laplace(name="slant")]
    for name, model, message in (
        ("labels", dataclasses.replace(other, heads=(labels, SLANT)), 'head digit has labels ["a","b","z"], not'),
        ("range", dataclasses.replace(other, input=wide), "input has range [-2.0,2.0], not [-1.0,1.0]"),
        ("heads", text, "its heads are digit, not digit, slant"),
        ("kind", dataclasses.replace(other, heads=tuple(mixed)), 'head slant has likelihood "laplace", not "normal"'),
    ):
        third = save_model(model, tmp_path / name, "")
        with pytest.raises(UsageError) as refused:
            export(folders[0], tmp_path / "artifacts", ExportRequest(members=(folders[1], third)))
        assert message in str(refused.value)
        assert f"{third}: no ensemble with {folders[0]}: " in str(refused.value)
    for request, message in (
        (ExportRequest(members=(folders[0],)), "named twice"),
        (ExportRequest(members=(folders[1],), precisions=("int8",)), "--precisions int8: not for an ensemble"),
        (ExportRequest(name="../up"), "--name '../up'"),
    ):
        with pytest.raises(UsageError, match=message):
            export(folders[0], tmp_path / "artifacts", request)
    assert not (tmp_path / "artifacts").exists()
