"""Deep ensembles: every chunk and signature against the members, asked one by one."""

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

from probrt.exporter.export import ExportRequest, export
from probrt.exporter.reference import Reference
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
Outputs = dict[str, np.ndarray]


def saved(model: Model, folder: Path, note: str) -> Path:
    images = np.random.default_rng(1).uniform(-1, 1, (4, *model.input.shape)).astype(np.float32)
    store.save_model(model, folder, images=images, provenance={"note": note})
    return folder


def bayesian(seed: int) -> Model:
    """A member of its own initial weights, its own calibration and its own idea of the targets' scale."""
    keras.utils.set_random_seed(seed)
    made = BY_NAME["conv2d_random_bias"].make()
    slant = msgspec.structs.replace(SLANT, centre=[3.0 + seed], spread=[0.5 + seed])
    threshold = Conformal(coverage=0.9, method="lac", threshold=0.5)
    calibration = (Calibration(head="digit", temperature=1.0 + seed, conformal=[threshold]),)
    return dataclasses.replace(made, heads=(DIGIT, slant), calibration=calibration)


def plain(seed: int) -> Model:
    """A member without random weights."""
    keras.utils.set_random_seed(seed)

    def layer(filters: int) -> layers.Conv2D:
        return layers.Conv2D(filters, 3, kernel_posterior=None, activation="tanh")

    return layered("plain", [8, 8, 2], [DIGIT, SLANT], layer(4), layer)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    home = tmp_path_factory.mktemp("members")
    return [saved(bayesian(seed), home / f"member{seed}", f"seed {seed}") for seed in (0, 1)]


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


def combined(bundle: Bundle, members: Sequence[Reference], seed: int, indices: Sequence[int]) -> Outputs:
    """The draws of these indices, each of the member whose turn it is, under the law of total variance."""
    sums = {head.name: combine_chunks(head) for head in bundle.manifest.heads}
    for index in indices:
        (one,) = members[index % len(members)].each(IMAGES, seed, [index])
        for name, total in sums.items():
            total.add({**one, f"{name}.epistemic": np.zeros_like(one[f"{name}.aleatoric"])}, 1)
    return {f"{name}.{key}": value for name, total in sums.items() for key, value in total.combine().items()}


def averaged(members: Sequence[Reference]) -> Outputs:
    answers = [member.mean(IMAGES) for member in members]
    return {name: np.mean([answer[name] for answer in answers], axis=0) for name in answers[0]}


@functools.cache
def loaded(path: Path, first: str) -> Graph:
    bundle = Bundle.open(path)
    files = [one for one in bundle.manifest.files if one.path == first]
    engine = next(one for one in engines() if one.name == ENGINES[files[0].format])
    whole = bundle.files("savedmodel") if files[0].format == "savedmodel" else files
    return engine.load_module().load(bundle, list(whole), "cpu", 1)


def ask(bundle: Bundle, files: Sequence[FileRecord], signature: str = "", **more: int) -> Outputs:
    graph = loaded(bundle.path, files[0].path)
    asked = {name: np.array([value], np.int32) for name, value in more.items()}
    return graph({"images": IMAGES, **asked}, *([signature] if signature else []))


def close(answer: Outputs, expected: Outputs) -> None:
    assert set(answer) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(answer[name], value, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)


def test_bank_files(bundle: Bundle, members: list[Reference]) -> None:
    posterior, graphs = bundle.manifest.posterior, [one for one in bundle.manifest.files if one.format != "savedmodel"]
    assert sorted(one.path for one in graphs) == sorted(
        f"{name}.{format}" for name in ("mean", "draws-00", "draws-01") for format in ("tflite", "onnx")
    )
    assert {index % 2 for index in posterior.order[:8]} == {0, 1}
    for file in graphs:
        if file.draws is None:
            close(ask(bundle, [file]), averaged(members))
        else:
            first, count = file.draws
            close(ask(bundle, [file]), combined(bundle, members, 4, posterior.order[first : first + count]))


def test_savedmodel(bundle: Bundle, members: list[Reference]) -> None:
    files, order = bundle.files("savedmodel"), bundle.manifest.posterior.order
    bank = ask(bundle, files, "serving_default")
    close(bank, combined(bundle, members, 4, order))
    close(ask(bundle, files, "mean"), averaged(members))
    close(ask(bundle, files, "sample", num_samples=5, seed=7), combined(bundle, members, 7, range(5)))
    close(ask(bundle, files, "sample", num_samples=9, seed=4), combined(bundle, members, 4, order[:9]))
    each = ask(bundle, files, "draws", num_samples=3, seed=7)["digit.mean"]
    for index in range(3):
        alone = members[index % 2].each(IMAGES, 7, [index])[0]["digit.mean"]
        np.testing.assert_allclose(each[:, index], alone, rtol=TOLERANCE, atol=TOLERANCE)
    # The members' standardisations lie far apart, so that none of them alone can know this spread.
    for member in members:
        assert bank["slant.epistemic"].mean() > member.draws(IMAGES, 4, order)["slant.epistemic"].mean()


def test_what_the_manifest_says(bundle: Bundle) -> None:
    assert bundle.manifest.model.name == "pair"
    assert bundle.manifest.calibration == []
    training = bundle.manifest.provenance.training["members"]
    assert [one["provenance"] for one in training] == [{"note": "seed 0"}, {"note": "seed 1"}]
    assert [one["calibration"][0]["temperature"] for one in training] == [1.0, 2.0]


def test_members_without_random_weights(tmp_path: Path) -> None:
    """The classic deep ensemble: the members are the draws, one each, in one chunk."""
    folders = [saved(plain(seed), tmp_path / f"plain{seed}", "") for seed in range(3)]
    found = export(
        folders[0], tmp_path / "artifacts", ExportRequest(formats=("savedmodel", "onnx"), members=tuple(folders[1:]))
    ).bundle
    posterior = found.manifest.posterior
    assert (posterior.order, posterior.chunk, posterior.samples, posterior.max_samples) == ([0, 1, 2], 3, 3, 3)
    members = [Reference(store.load_model(folder)[0], found.manifest.heads) for folder in folders]
    expected = combined(found, members, 0, range(3))
    assert expected["digit.epistemic"].min() > 0
    for format, signature in (("onnx", ""), ("savedmodel", "serving_default")):
        files = [one for one in found.files(format) if format == "savedmodel" or one.draws == (0, 3)]
        close(ask(found, files, signature), expected)
    close(ask(found, found.files("savedmodel"), "sample", num_samples=2, seed=5), combined(found, members, 5, range(2)))
    with pytest.raises(UsageError, match="--draws 8: an ensemble without random weights has 3 draws"):
        export(folders[0], tmp_path / "artifacts", ExportRequest(draws=8, members=tuple(folders[1:])))


def test_what_is_no_ensemble(folders: list[Path], tmp_path: Path) -> None:
    other = dataclasses.replace(bayesian(2), calibration=())
    labels = msgspec.structs.replace(DIGIT, labels=["a", "b", "z"])
    wide = msgspec.structs.replace(other.input, range=(-2.0, 2.0))
    text = layered("text", [8, 8, 2], [DIGIT], lambda images: images, lambda width: layers.Conv2D(width, 1))
    mixed = [DIGIT, heads.Laplace(name="slant")]
    for name, model, said in (
        ("labels", dataclasses.replace(other, heads=(labels, SLANT)), 'head digit has labels ["a","b","z"], not'),
        ("range", dataclasses.replace(other, input=wide), "input has range [-2.0,2.0], not [-1.0,1.0]"),
        ("heads", text, "its heads are digit, not digit, slant"),
        ("kind", dataclasses.replace(other, heads=tuple(mixed)), 'head slant has likelihood "laplace", not "normal"'),
    ):
        third = saved(model, tmp_path / name, "")
        with pytest.raises(UsageError) as refused:
            export(folders[0], tmp_path / "artifacts", ExportRequest(members=(folders[1], third)))
        assert said in str(refused.value)
        assert f"{third}: no ensemble with {folders[0]}: " in str(refused.value)
    for request, said in (
        (ExportRequest(members=(folders[0],)), "named twice"),
        (ExportRequest(members=(folders[1],), precisions=("int8",)), "--precisions int8: not for an ensemble"),
        (ExportRequest(name="../up"), "--name '../up'"),
    ):
        with pytest.raises(UsageError, match=said):
            export(folders[0], tmp_path / "artifacts", request)
    assert not (tmp_path / "artifacts").exists()
