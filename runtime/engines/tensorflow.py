"""TensorFlow runs the SavedModel on the CPU or CUDA."""

import contextlib
from collections.abc import Sequence

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import FileRecord
from probrt.runtime.bundle.vetting import vet_saved_model
from probrt.runtime.engines.graph import Arrays, Outputs, device_error, load_error
from probrt.runtime.hush import hush

with hush():
    import tensorflow as tf

_DEVICES = {"cuda": "GPU", "cpu": "CPU"}


def version() -> str:
    return str(tf.__version__)


def devices() -> tuple[str, ...]:
    with hush():
        return tuple(name for name, kind in _DEVICES.items() if tf.config.list_physical_devices(kind))


class TensorFlow:
    """A SavedModel; a call names the signature that answers."""

    def __init__(self, path: str, device: str) -> None:
        self._device = f"/{_DEVICES[device]}:0"
        with hush(), tf.device(self._device):
            self._model = tf.saved_model.load(path)

    def __call__(self, inputs: Arrays, signature: str = "serving_default") -> Outputs:
        with tf.device(self._device):
            tensors = {name: tf.constant(array) for name, array in inputs.items()}
            answer = self._model.signatures[signature](**tensors)
        return {name: tensor.numpy() for name, tensor in answer.items()}


def load(bundle: Bundle, files: Sequence[FileRecord], device: str, threads: int) -> TensorFlow:
    """Checks the digest of each file of the SavedModel, and loads it."""
    if device not in devices():
        raise device_error("tensorflow", device, devices())
    for file in files:
        bundle.check(file)
        if file.path == "saved_model.pb":
            vet_saved_model(bundle.read(file), file.path, bundle.manifest.ops)
    with contextlib.suppress(RuntimeError):  # TensorFlow is already running with threads of its own
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    try:
        return TensorFlow(str(bundle.path), device)
    except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
        raise load_error(files[0], error) from None
