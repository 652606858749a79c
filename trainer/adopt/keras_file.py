"""Reads a `.keras` file that nobody vouches for: no code, no other files, no more memory than its network needs."""

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
    """Returns the network of a `.keras` file, with its weights and without its optimizer.

    Raises DataError, with what to do, if there is no such file, if it is damaged, or if it names a class that may run
    code or that is not known here.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; save the model with model.save({path.stem + '.keras'!r})")
    try:
        with zipfile.ZipFile(path) as archive:
            architecture = _read_architecture(archive)
            load_installed()
            network = keras.models.model_from_json(vet_architecture(architecture, AUGMENTATIONS))
            with tempfile.TemporaryDirectory() as folder:
                _load_weights(archive, network, Path(folder))
        return network
    except zipfile.BadZipFile:
        raise DataError(
            f"{path}: not a .keras file; load it with keras.models.load_model and save it again as x.keras"
        ) from None
    except Exception as error:  # a damaged file can fail anywhere in the libraries behind
        raise DataError(f"{path}: cannot be adopted: {one_line(error)[:300]}") from None


def _read_architecture(archive: zipfile.ZipFile) -> str:
    """Returns the network's JSON without the record of how it was compiled, which adoption does not need."""
    if archive.getinfo(_CONFIG).file_size > _MAX_CONFIG_BYTES:
        raise ValueError(f"{_CONFIG} has more than {_MAX_CONFIG_BYTES} bytes")
    content = json.loads(archive.read(_CONFIG))
    if not isinstance(content, dict):
        raise ValueError(f"{_CONFIG} holds no network")
    content.pop("compile_config", None)
    return json.dumps(content)


def _load_weights(archive: zipfile.ZipFile, network: keras.Model, folder: Path) -> None:
    names = set(archive.namelist())
    if _WEIGHTS not in names:
        raise ValueError(f"it has no {_WEIGHTS}")
    if network.count_params() * 4 * _WEIGHTS_FACTOR + (64 << 20) < archive.getinfo(_WEIGHTS).file_size:
        raise ValueError(f"{_WEIGHTS} is larger than the network's weights can be")
    path = Path(archive.extract(_WEIGHTS, folder))
    check_weights_file(path, network, _WEIGHTS_FACTOR)
    network.load_weights(path)
