"""A model directory from a stranger: every fault is one line with the file's name, and nothing in it runs."""

from __future__ import annotations

import io
import json
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from probrt.runtime.errors import DataError, ProbrtError
from probrt.trainer import store
from probrt.trainer.vet_architecture import SAFE_LAYERS, vet_architecture

MODEL = Path(__file__).parents[1] / "golden" / "format-1" / "model"
# Layers that call code or read files which the network names, and layers that no exported network needs.
OTHER_LAYERS = {
    "Lambda", "TFSMLayer", "JaxLayer", "FlaxLayer", "TorchModuleWrapper", "StringLookup", "IntegerLookup",
    "TextVectorization", "Layer", "Wrapper", "Pipeline", "AugMix", "AutoContrast",
    "ContrastLimitedAdaptiveHistogramEqualization", "CutMix", "Equalization", "MaxNumBoundingBoxes", "MixUp",
    "RandAugment", "Solarization",
}  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of a good model directory."""
    return Path(shutil.copytree(MODEL, tmp_path / "model"))


def load_all(folder: Path) -> None:
    """Reads everything in a model directory."""
    store.load_model(folder)
    store.load_images(folder)
    store.load_targets(folder)


def refuse(folder: Path, file: str, match: str) -> None:
    """Checks that the directory is refused with the name of the file in one line."""
    with pytest.raises(DataError, match=match) as error:
        load_all(folder)
    assert file in str(error.value)
    assert "\n" not in str(error.value)


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "..", "a/b", "", "a\n", "x" * 10 + "\u0000"])
def test_a_name_that_leaves_its_folder(model: Path, name: str, tmp_path: Path, called: Callable[..., Any]) -> None:
    edit_json(model / "model.json", lambda content: content.update(name=name))
    refuse(model, "model.json", "regex")
    place = tmp_path / "a" / "b"
    place.mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    done = called("export", model, "--draws", 8, cwd=place)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert sorted(tmp_path.rglob("*")) == before


def lambda_layer(**changes: Any) -> dict[str, Any]:
    code = "gAAA"
    record = {
        "module": "keras.layers", "class_name": "Lambda", "registered_name": None,
        "config": {"name": "unit", "function": {"class_name": "__lambda__", "config": {"value": code}}},
    }  # fmt: skip
    return {**record, **changes}


LAYERS = {
    "lambda": lambda_layer(),
    "lambda-of-a-function": lambda_layer(config={"name": "unit", "function": "softmax"}),
    "lambda-of-keras-2": {"class_name": "Lambda", "config": {"name": "unit", "function": "softmax"}},
    "lambda-under-another-name": {
        "class_name": "Lambda", "registered_name": "probrt>Conv2D", "config": {"name": "unit", "function": "softmax"},
    },
    "another-name-for-lambda": lambda_layer(registered_name="probrt>Conv2D"),
    "private-module": lambda_layer(module="keras.src.layers.core.lambda_layer"),
    "wrapped": {
        "module": "keras.layers", "class_name": "TimeDistributed", "registered_name": None,
        "config": {"layer": lambda_layer()},
    },
    "saved-model": lambda_layer(class_name="TFSMLayer", config={"filepath": "/tmp/x"}),
    "vocabulary": lambda_layer(class_name="StringLookup", config={"vocabulary": "/etc/passwd"}),
    "system": lambda_layer(module="os", class_name="system", config={"command": "true"}),
    "function": {"module": "os", "class_name": "function", "registered_name": "system", "config": "system"},
    "optimizer": lambda_layer(module="keras.optimizers", class_name="Adam", config={}),
    "type-spec": {
        "module": "os", "class_name": "__typespec__", "registered_name": None, "spec_name": "PathLike", "config": [],
    },
    "no-text": lambda_layer(class_name=["Dense"]),
}  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_that_may_run_code_is_refused_before_keras(
    model: Path, layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(content: dict[str, Any]) -> None:
        content["config"]["layers"][1] |= {"build_config": LAYERS[layer]}  # anywhere, not only among the layers

    monkeypatch.setattr(keras.models, "model_from_json", lambda text: pytest.fail("Keras saw it"))
    edit_json(model / "architecture.json", replace)
    refuse(model, "architecture.json", "names the class")


def test_every_layer_of_keras_is_allowed_or_refused_on_purpose() -> None:
    """One name of each class is enough: Keras writes only that one."""
    names: dict[type, set[str]] = {}
    for name, layer in vars(keras.layers).items():
        if isinstance(layer, type) and issubclass(layer, keras.Layer) and not name.startswith("Random"):
            names.setdefault(layer, set()).add(name)
    undecided = [aliases for aliases in names.values() if not aliases & (SAFE_LAYERS | OTHER_LAYERS)]
    assert not undecided
    assert not SAFE_LAYERS & OTHER_LAYERS
    assert set().union(*names.values()) >= SAFE_LAYERS


def test_operations_and_settings_of_keras_are_allowed() -> None:
    images = keras.Input((4, 4, 1))
    features = keras.layers.Conv2D(2, 3, kernel_regularizer="l2", kernel_constraint="unit_norm")(images)
    network = keras.Model(images, keras.layers.Activation("silu")(keras.ops.relu(features * 2.0 + 1.0)[:, :1]))
    again = keras.models.model_from_json(vet_architecture(network.to_json()))
    assert [layer.name for layer in again.layers] == [layer.name for layer in network.layers]


def test_the_layers_of_keras_applications_are_allowed() -> None:
    """ConvNeXt and InceptionResNetV2 have layers of their own; no other network has."""
    from keras.src.applications import convnext, inception_resnet_v2

    images = keras.Input((4, 4, 3))
    features = convnext.StochasticDepth(0.1)(convnext.LayerScale(0.5, 3)(images))
    network = keras.Model(images, inception_resnet_v2.CustomScaleLayer(0.5)([features, images]))
    again = keras.models.model_from_json(vet_architecture(network.to_json()))
    assert [type(layer) for layer in again.layers] == [type(layer) for layer in network.layers]
    for module in (convnext, inception_resnet_v2):
        assert "Lambda" not in vars(module)
    sources = Path(convnext.__file__).parent.glob("*.py")
    own = {path.stem for path in sources if "(Layer)" in path.read_text() and not path.stem.endswith("_test")}
    assert own == {"convnext", "inception_resnet_v2"}


def nest(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(text * 200_000)


def write_weights(path: Path, change: Callable[[h5py.File], None]) -> None:
    with h5py.File(path, "a") as file:
        change(file)


def replace_dataset(file: h5py.File, **options: Any) -> None:
    """Replaces the first dataset by another of the same shape."""
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    shape = options.pop("shape", file[names[0]].shape)
    del file[names[0]]
    file.create_dataset(names[0], shape=shape, dtype="float32", **options)


def npy_header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


class Opener:
    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("/tmp/probrt-pickle-ran", "w")


def pickled_array() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([Opener()], object), allow_pickle=True)
    return stream.getvalue()


def write_archive(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def head_name() -> str:
    return str(json.loads((MODEL / "model.json").read_text())["heads"][0]["name"])


DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "no json": ("model.json", lambda path: path.write_bytes(b"\xff\xfe{")),
    "a list": ("model.json", lambda path: path.write_text("[]")),
    "deep json": ("model.json", nest('{"name":')),
    "deep network": ("architecture.json", nest("[")),
    "no network": ("architecture.json", lambda path: path.write_text('{"class_name": 3}')),
    "an activation only": (
        "architecture.json",
        lambda path: path.write_text(
            '{"module": "keras.layers", "class_name": "Dense", "config": {"units": 1}, "registered_name": null}'
        ),
    ),
    "half of the weights": ("weights.weights.h5", lambda path: path.write_bytes(path.read_bytes()[:3000])),
    "weights in another file": (
        "weights.weights.h5",
        lambda path: write_weights(path, lambda file: replace_dataset(file, external=[("/etc/passwd", 0, 2000)])),
    ),
    "a link to another file": (
        "weights.weights.h5",
        lambda path: write_weights(path, lambda file: file.update(x=h5py.ExternalLink("/etc/passwd", "/"))),
    ),
    "weights that would fill the memory": (
        "weights.weights.h5",
        lambda path: write_weights(
            path, lambda file: replace_dataset(file, shape=(1 << 40,), chunks=(1 << 20,), compression="gzip")
        ),
    ),
    "an empty file": ("images.npy", lambda path: path.write_bytes(b"")),
    "a pickle": ("images.npy", lambda path: path.write_bytes(pickled_array())),
    "a bare pickle": ("images.npy", lambda path: path.write_bytes(pickle.dumps(Opener()))),
    "a header of terabytes": (
        "images.npy",
        lambda path: path.write_bytes(npy_header((1 << 40, 16, 16, 1)) + bytes(99)),
    ),
    "a negative shape": ("images.npy", lambda path: path.write_bytes(npy_header((-1, 16, 16, 1)) + bytes(99))),
    "no images": ("images.npy", lambda path: np.save(path, np.zeros((0, 16, 16, 1), np.float32))),
    "other images": ("images.npy", lambda path: np.save(path, np.zeros((3, 5), np.float32))),
    "texts": ("images.npy", lambda path: np.save(path, np.array(["a", "b"]))),
    "half an archive": ("targets.npz", lambda path: path.write_bytes(path.read_bytes()[:100])),
    "targets of no head": ("targets.npz", lambda path: write_archive(path, {"../x.npy": npy_header((1,))})),
    "pickled targets": ("targets.npz", lambda path: write_archive(path, {f"{head_name()}.npy": pickled_array()})),
    "targets that would fill the memory": (
        "targets.npz",
        lambda path: write_archive(path, {f"{head_name()}.npy": npy_header((1 << 20,)) + bytes(1 << 22)}),
    ),
    "fewer targets": ("targets.npz", lambda path: write_archive(path, {f"{head_name()}.npy": npy_header((0,))})),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named(model: Path, damage: str) -> None:
    file, change = DAMAGES[damage]
    change(model / file)
    refuse(model, file, "damaged")
    assert not Path("/tmp/probrt-pickle-ran").exists()


def mutate(model: Path, count: int) -> int:
    """Damages one file at a time at random and loads the directory; returns how many were refused."""
    rng = random.Random(0)
    files = sorted(path for path in model.iterdir() if path.suffix != ".md")
    refused = 0
    for _ in range(count):
        path = rng.choice(files)
        content = path.read_bytes()
        damaged = bytearray(content)
        if rng.random() < 0.3:
            del damaged[rng.randrange(len(damaged)) :]
        else:
            for _ in range(rng.choice([1, 4, 30])):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(bytes(damaged))
        try:
            load_all(model)
        except ProbrtError as error:
            assert isinstance(error, DataError)  # noqa: PT017  (another error is a fault of its own)
            refused += 1
        path.write_bytes(content)
    return refused


@pytest.mark.slow
def test_random_damage_is_refused_or_loads(model: Path) -> None:
    assert mutate(model, 30) > 5


@pytest.mark.stress
def test_500_damaged_model_directories(model: Path, measured: Callable[[str, str], None]) -> None:
    refused = mutate(model, 500)
    measured("500 model directories with a damaged file", f"{refused} refused with a line, the others loaded")
