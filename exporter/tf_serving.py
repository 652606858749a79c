"""What TensorFlow Serving finds beside a SavedModel: requests to warm up with, and settings for batching.

Only signatures that server-side batching can answer are warmed up, with a number and a seed for each row: a record
that a signature cannot answer makes the whole model unavailable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from probrt.exporter.signatures import encodable
from probrt.runtime.bundle.manifest import PosteriorRecord
from probrt.runtime.images.png import encode_png
from probrt.trainer.model import Model

FOLDER = "assets.extra"
WARMUP = "tf_serving_warmup_requests"
BATCHING = "batching_parameters.txt"
# Sizes that meet a batch of one and one that is not full; of large images one row has to do.
_ROWS = (1, 4)
_LARGE = 1 << 22
_BATCHING = """max_batch_size { value: 64 }
batch_timeout_micros { value: 2000 }
max_enqueued_batches { value: 256 }
num_batch_threads { value: 2 }
"""


def write(model: Model, posterior: PosteriorRecord | None, images: np.ndarray, folder: Path) -> None:
    """Writes the extra files into `assets.extra/` of a SavedModel; images are real ones [count, *input.shape]."""
    extra = folder / FOLDER
    extra.mkdir()
    (extra / BATCHING).write_text(_BATCHING)
    with tf.io.TFRecordWriter(str(extra / WARMUP)) as writer:
        for rows in _ROWS if images[0].nbytes * max(_ROWS) < _LARGE else _ROWS[:1]:
            for signature, inputs in requests(model, posterior, images[:rows].astype(np.float32)):
                writer.write(_record(model.name, signature, inputs))


def requests(
    model: Model, posterior: PosteriorRecord | None, images: np.ndarray
) -> Iterator[tuple[str, Mapping[str, np.ndarray]]]:
    """(signature, inputs) of one request per signature that may be batched."""
    yield "serving_default", {"images": images}
    yield "mean", {"images": images}
    if posterior is not None:
        rows = len(images)
        number, seed = np.full(rows, posterior.samples, np.int32), np.full(rows, posterior.seed, np.int32)
        yield "sample", {"images": images, "num_samples": number, "seed": seed}
    if encodable(model):
        pictures = [encode_png(image) for image in images.round().clip(0, 255).astype(np.uint8)]
        yield "encoded", {"image_bytes": np.array(pictures, object)}


def _record(model: str, signature: str, inputs: Mapping[str, np.ndarray]) -> bytes:
    """A PredictionLog of TensorFlow Serving's protos, which need no package of their own for four fields."""
    spec = _field(1, model.encode()) + _field(3, signature.encode())
    request = _field(1, spec)
    for name, values in inputs.items():
        tensor = tf.make_tensor_proto(values).SerializeToString()
        request += _field(2, _field(1, name.encode()) + _field(2, tensor))
    return _field(6, _field(1, request))


def _field(number: int, content: bytes) -> bytes:
    size, length = bytearray(), len(content)
    while length > 127:
        size.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2, *size, length]) + content
