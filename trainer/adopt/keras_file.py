"""Reads a `.keras` file or a Hub folder that nobody vouches for: no code, and no more memory than the network needs.

A folder as `keras.saving` writes it for the Hugging Face Hub holds the parts of a `.keras` file, or the file itself.
Nothing else in it is opened.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from pathlib import Path

import keras

from probrt.runtime.errors import DataError, one_line
from probrt.trainer.extensions import load_installed
from probrt.trainer.stored_arrays import check_weights_file
from probrt.trainer.vet_architecture import vet_architecture

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_MAX_CONFIG_BYTES = 64 << 20
# How many times the bytes of the network the weights may have: Adam keeps two numbers for each of its weights.
_WEIGHTS_FACTOR = 4
# Layers that change pixels at random while fitting and leave them alone afterwards: an adopted model drops them.
AUGMENTATIONS = frozenset(
    ("RandomBrightness", "RandomColorDegeneration", "RandomColorJitter", "RandomContrast", "RandomCrop",
     "RandomElasticTransform", "RandomErasing", "RandomFlip", "RandomGaussianBlur", "RandomGrayscale", "RandomHue",
     "RandomInvert", "RandomPerspective", "RandomPosterization", "RandomRotation", "RandomSaturation",
     "RandomSharpness", "RandomShear", "RandomTranslation", "RandomZoom")
)  # fmt: skip


def read_keras_file(path: Path) -> keras.Model:
    """Returns the network of a `.keras` file or a folder, with its weights and without its optimizer.

    Raises DataError, with what to do, if there is no such file, if it is damaged, or if it names a class that may run
    code or that is not known here.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file; save the model with model.save({path.stem + '.keras'!r})")
    if path.is_dir() and not (path / _CONFIG).is_file():
        path = _find_file(path)
    try:
        return _read_folder(path) if path.is_dir() else _read_archive(path)
    except zipfile.BadZipFile:
        raise DataError(
            f"{path}: not a .keras file; load it with keras.models.load_model and save it again as x.keras"
        ) from None
    except Exception as error:  # a damaged file can fail anywhere in the libraries behind
        raise DataError(f"{path}: cannot be adopted: {one_line(error)[:300]}") from None


def _find_file(folder: Path) -> Path:
    """Returns the one `.keras` file of a folder."""
    files = sorted(folder.glob("*.keras"))
    if len(files) == 1:
        return files[0]
    if files:
        raise DataError(f"{folder}: holds {', '.join(file.name for file in files)}; name one of them")
    if (folder / "saved_model.pb").is_file():
        raise DataError(
            f"{folder}: a SavedModel, which holds graphs and not layers; save the model with model.save('x.keras')"
        )
    raise DataError(f"{folder}: neither a .keras file nor {_CONFIG} with {_WEIGHTS} is there")


def _read_archive(path: Path) -> keras.Model:
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
        _check_size(archive.getinfo(_CONFIG).file_size)
        network = _build(archive.read(_CONFIG))
        if _WEIGHTS not in archive.namelist():
            raise ValueError(f"it has no {_WEIGHTS}")
        _check_weights_size(archive.getinfo(_WEIGHTS).file_size, network)
        _load_weights(Path(archive.extract(_WEIGHTS, folder)), network)
    return network


def _read_folder(folder: Path) -> keras.Model:
    config, weights = folder / _CONFIG, folder / _WEIGHTS
    _check_size(config.stat().st_size)
    network = _build(config.read_bytes())
    if not weights.is_file():
        raise ValueError(f"it has no {_WEIGHTS}; save it as one file with model.save('x.keras')")
    _check_weights_size(weights.stat().st_size, network)
    _load_weights(weights, network)
    return network


def _check_size(size: int) -> None:
    if size > _MAX_CONFIG_BYTES:
        raise ValueError(f"{_CONFIG} has more than {_MAX_CONFIG_BYTES} bytes")


def _build(config: bytes) -> keras.Model:
    """Returns the network without the record of how it was compiled, which adoption does not need."""
    content = json.loads(config)
    if not isinstance(content, dict):
        raise ValueError(f"{_CONFIG} holds no network")
    if "class_name" not in content:
        raise ValueError(f"{_CONFIG} is not that of a Keras model")
    content.pop("compile_config", None)
    load_installed()
    return keras.models.model_from_json(vet_architecture(json.dumps(content), AUGMENTATIONS))


def _check_weights_size(size: int, network: keras.Model) -> None:
    if network.count_params() * 4 * _WEIGHTS_FACTOR + (64 << 20) < size:
        raise ValueError(f"{_WEIGHTS} is larger than the network's weights can be")


def _load_weights(path: Path, network: keras.Model) -> None:
    check_weights_file(path, network, _WEIGHTS_FACTOR)
    network.load_weights(path)
