"""The files that TensorFlow Serving reads beside a SavedModel: warm-up requests and settings for batching.

Each signature gets warm-up requests, with a number of draws and a seed for each row: a server that batches replays
them through its batching, and a request that a signature cannot answer would make the whole model unavailable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from probrt.exporter.exportable import Exportable
from probrt.exporter.signatures import is_encodable
from probrt.runtime.bundle.manifest import PosteriorRecord
from probrt.runtime.images.png import encode_png

FOLDER = "assets.extra"
WARMUP = "tf_serving_warmup_requests"
BATCHING = "batching_parameters.txt"
# Batch sizes: one image, and a batch that is not full. Requests of more than _MAX_BYTES get one row only.
_ROWS = (1, 4)
_MAX_BYTES = 1 << 22
# A server splits a request of up to max_batch_size rows into batches of up to max_execution_batch_size.
_BATCHING = """max_batch_size { value: 1024 }
max_execution_batch_size { value: 64 }
enable_large_batch_splitting { value: true }
batch_timeout_micros { value: 2000 }
max_enqueued_batches { value: 256 }
num_batch_threads { value: 2 }
"""


def write_serving_files(
    model: Exportable, posterior: PosteriorRecord | None, images: npt.NDArray[Any], folder: Path
) -> None:
    """Writes the files into `assets.extra/` of a SavedModel; images are real ones [count, *input.shape]."""
    extra = folder / FOLDER
    extra.mkdir()
    (extra / BATCHING).write_text(_BATCHING)
    with tf.io.TFRecordWriter(str(extra / WARMUP)) as writer:
        for rows in _ROWS if images[0].nbytes * max(_ROWS) < _MAX_BYTES else _ROWS[:1]:
            for signature, inputs in make_warmup_requests(model, posterior, images[:rows].astype(np.float32)):
                writer.write(_encode_request(model.name, signature, inputs))


def make_warmup_requests(
    model: Exportable, posterior: PosteriorRecord | None, images: npt.NDArray[np.float32]
) -> Iterator[tuple[str, Mapping[str, npt.NDArray[Any]]]]:
    """Yields (signature, inputs) of one request per signature."""
    yield "serving_default", {"images": images}
    yield "mean", {"images": images}
    if posterior is not None:
        rows = len(images)
        counts, seeds = np.full(rows, posterior.samples, np.int32), np.full(rows, posterior.seed, np.int32)
        for signature in ("sample", "draws"):
            yield signature, {"images": images, "num_samples": counts, "seed": seeds}
    if is_encodable(model.input):
        pictures = [encode_png(image) for image in images.round().clip(0, 255).astype(np.uint8)]
        yield "encoded", {"image_bytes": np.array(pictures, object)}


def _encode_request(model: str, signature: str, inputs: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Encodes a PredictionLog of TensorFlow Serving by hand: four fields are not worth a dependency on its protos."""
    spec = _encode_field(1, model.encode()) + _encode_field(3, signature.encode())
    request = _encode_field(1, spec)
    for name, values in inputs.items():
        tensor = tf.make_tensor_proto(values).SerializeToString()
        request += _encode_field(2, _encode_field(1, name.encode()) + _encode_field(2, tensor))
    return _encode_field(6, _encode_field(1, request))


def _encode_field(number: int, content: bytes) -> bytes:
    """Encodes a length-delimited field of a protocol buffer."""
    size, length = bytearray(), len(content)
    while length > 127:
        size.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2, *size, length]) + content
