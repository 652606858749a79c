"""A `.keras` file from a stranger: read without code, refused in one line otherwise."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from finished_models import load_digits, make_classifier, train

from probrt.runtime.errors import DataError
from probrt.trainer.adopt.keras_command import load_source
from probrt.trainer.adopt.keras_file import AUGMENTATIONS, read_keras_file

# One worker for all: the fixture of the module is made once.
pytestmark = pytest.mark.xdist_group("keras_file")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, keras.Model]:
    """A compiled and fitted model and its file, which holds the state of Adam too."""
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    model = train(make_classifier(), epochs=1)
    model.save(path)
    return path, model


def rewrite(source: Path, target: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target


def test_a_file_comes_back_with_its_weights(saved: tuple[Path, keras.Model]) -> None:
    images = load_digits()[0][:8] / 255.0
    expected = saved[1](images, training=False)  # by default a layer of augmentation acts
    np.testing.assert_array_equal(read_keras_file(saved[0])(images, training=False), expected)


def test_a_hub_folder_is_read_and_nothing_else_in_it(saved: tuple[Path, keras.Model], tmp_path: Path) -> None:
    """What `keras.saving` writes for the Hub, beside code that nobody runs; and a folder that holds the file."""
    folder = tmp_path / "digits-v1.0"
    keras.saving.save_model(saved[1], folder, zipped=False)
    assert {"config.json", "metadata.json", "model.weights.h5"} <= {path.name for path in folder.iterdir()}
    (folder / "README.md").write_text("---\nlibrary_name: keras\n---\n")
    (folder / "modeling.py").write_text("raise SystemExit('was run')\n")
    images = load_digits()[0][:8] / 255.0
    expected = saved[1](images, training=False)
    np.testing.assert_array_equal(read_keras_file(folder)(images, training=False), expected)
    assert load_source(str(folder))[1] == "digits-v1.0"
    (folder / "model.weights.h5").unlink()
    with pytest.raises(DataError, match=r"it has no model.weights.h5"):
        read_keras_file(folder)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(DataError, match=r"neither a .keras file nor config.json"):
        read_keras_file(other)
    shutil.copy(saved[0], other / "digits.keras")
    np.testing.assert_array_equal(read_keras_file(other)(images, training=False), expected)
    shutil.copy(saved[0], other / "more.keras")
    with pytest.raises(DataError, match=r"holds digits.keras, more.keras; name one"):
        read_keras_file(other)


def test_folders_of_other_kinds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(DataError, match="a SavedModel, which holds graphs"):
        read_keras_file(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "vit", "architectures": ["ViT"]}')  # of transformers
    with pytest.raises(DataError, match=r"config.json is not that of a Keras model"):
        read_keras_file(tmp_path)


@pytest.mark.slow
def test_networks_of_keras_applications_come_back(tmp_path: Path) -> None:
    model = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=3)
    model.save(tmp_path / "model.keras")
    images = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_array_equal(read_keras_file(tmp_path / "model.keras")(images), model(images))


def test_code_is_refused_before_keras(
    saved: tuple[Path, keras.Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add_lambda(members: dict[str, bytes]) -> None:
        content: dict[str, Any] = json.loads(members["config.json"])
        content["config"]["layers"][1] |= {
            "module": "keras.layers", "class_name": "Lambda", "registered_name": None,
            "config": {"name": "x", "function": {"class_name": "__lambda__", "config": {"code": "gAAA"}}},
        }  # fmt: skip
        members["config.json"] = json.dumps(content).encode()

    monkeypatch.setattr(keras.models, "model_from_json", lambda text: pytest.fail("Keras saw it"))
    with pytest.raises(DataError, match="names the class 'Lambda'") as error:
        read_keras_file(rewrite(saved[0], tmp_path / "x.keras", add_lambda))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda members: members.pop("model.weights.h5"), "has no model.weights.h5"),
        (lambda members: members.pop("config.json"), "config.json"),
        (lambda members: members.update({"config.json": b"[]"}), "holds no network"),
        (lambda members: members.update({"config.json": b"{" * 5}), "cannot be adopted"),
        (lambda members: members.update({"model.weights.h5": b"x" * 99}), "cannot be adopted"),
    ],
    ids=["no-weights", "no-config", "list", "no-json", "no-hdf5"],
)
def test_damage_is_one_line(
    saved: tuple[Path, keras.Model], tmp_path: Path, change: Callable[[dict[str, bytes]], None], message: str
) -> None:
    with pytest.raises(DataError, match=message) as error:
        read_keras_file(rewrite(saved[0], tmp_path / "x.keras", change))
    assert "\n" not in str(error.value)
    assert "x.keras" in str(error.value)


def test_other_files_are_refused_with_advice(saved: tuple[Path, keras.Model], tmp_path: Path) -> None:
    with zipfile.ZipFile(saved[0]) as archive:
        archive.extract("model.weights.h5", tmp_path)
    shutil.move(tmp_path / "model.weights.h5", tmp_path / "x.keras")
    with pytest.raises(DataError, match=r"not a \.keras file; load it with"):
        read_keras_file(tmp_path / "x.keras")
    with pytest.raises(DataError, match="no such file; save the model"):
        read_keras_file(tmp_path / "absent.keras")


def test_every_layer_of_augmentation_is_known() -> None:
    assert {name for name in vars(keras.layers) if name.startswith("Random")} == AUGMENTATIONS
