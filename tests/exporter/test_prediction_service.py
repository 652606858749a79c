"""The bundle behind TensorFlow Serving's gRPC service with batching: every signature, many clients at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from exported_cases import ExportedCase
from prediction_service import PredictionClient, serve_bundle

from probrt.runtime.images.png import encode_png

pytestmark = [pytest.mark.stress, pytest.mark.parametrize("case", ["digits"], indirect=True)]
# The same graph on other batch sizes: float32 sums in another order.
TOLERANCE = 1e-5
SIGNATURES = ("serving_default", "sample", "draws", "mean", "encoded")


@pytest.fixture
def service(bundle: ExportedCase, tmp_path: Path) -> Iterator[tuple[str, PredictionClient]]:
    with serve_bundle(bundle.bundle.path.parent, tmp_path / "server.log") as served:
        yield served


def make_request(signature: str, number: int) -> dict[str, np.ndarray]:
    """Returns the inputs of a request of one to three rows, each with its own number and seed."""
    rng = np.random.default_rng(number)
    rows = 1 + number % 3
    images = rng.integers(0, 256, (rows, 16, 16, 1))
    if signature == "encoded":
        return {"image_bytes": np.array([encode_png(image.astype(np.uint8)) for image in images], object)}
    inputs = {"images": images.astype(np.float32)}
    if signature in ("sample", "draws"):
        inputs |= {"num_samples": rng.integers(1, 9, rows, np.int32), "seed": rng.integers(0, 4, rows, np.int32)}
    return inputs


def compare(answer: dict[str, np.ndarray], alone: dict[str, np.ndarray]) -> float:
    """Checks an answer that a server has merged; `draws` may be wider, with NaN. Returns the largest difference."""
    largest = 0.0
    assert answer.keys() == alone.keys()
    for name, want in alone.items():
        got = answer[name]
        if got.ndim > 1 and got.shape[1] > want.shape[1]:
            assert np.isnan(got[:, want.shape[1] :]).all(), name
            got = got[:, : want.shape[1]]
        np.testing.assert_allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)
        largest = max(largest, float(np.nanmax(np.abs(got - want), initial=0.0)))
    return largest


def test_every_signature_behind_a_server_that_batches(
    service: tuple[str, PredictionClient], bundle: ExportedCase, measured: Callable[[str, str], None]
) -> None:
    from tensorflow_serving.apis import prediction_log_pb2

    what, client = service
    records = tf.data.TFRecordDataset(str(bundle.bundle.path / "assets.extra" / "tf_serving_warmup_requests"))
    logs = [prediction_log_pb2.PredictionLog.FromString(record.numpy()) for record in records]
    for log in logs:
        answer = client.send(log.predict_log.request)
        assert all(np.isfinite(values).all() for values in answer.values())
    assert {log.predict_log.request.model_spec.signature_name for log in logs} == {*SIGNATURES}

    client.merged.clear()
    requests = [(signature, make_request(signature, number)) for signature in SIGNATURES for number in range(24)]
    alone = [client(*request) for request in requests]
    before = len(client.merged)
    with ThreadPoolExecutor(16) as threads:
        together = list(threads.map(lambda request: client(*request), requests))
    largest = max(compare(*pair) for pair in zip(together, alone, strict=True))
    runs = len(client.merged) - before
    if client.merged:
        assert before == len(requests)
        assert runs < len(requests)  # it has merged some

    images = np.concatenate([make_request("mean", number)["images"] for number in range(100)])
    whole = client("serving_default", {"images": images})
    part = client("serving_default", {"images": images[150:152]})
    compare({name: values[150:152] for name, values in whole.items()}, part)
    assert len(images) > 64
    one = client("sample", {"images": images[:1]})
    compare(one, client("serving_default", {"images": images[:1]}))
    with pytest.raises(grpc.RpcError):
        client("mean", {"images": images[:1, :8]})
    measured(
        f"{what}: all signatures over gRPC with batching, 16 clients, mixed numbers and seeds",
        f"{len(requests)} requests in {runs or 'an unknown number of'} runs, equal to alone to {largest:.1g}; "
        f"{len(images)} rows in one request; {len(logs)} warm-up requests replayed",
    )
