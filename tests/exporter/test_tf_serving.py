"""The bundle as TensorFlow Serving loads it: through the C++ loader, with no Python in the graph."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
import tensorflow as tf
from exported_cases import ExportedCase
from loader import RefusedError, SavedModelSession
from tensorflow.core.framework import tensor_pb2

from probrt.exporter import tf_serving
from probrt.runtime.bundle.protobuf import find_messages, read_text
from probrt.runtime.engines.openvino import has_bfloat16
from probrt.runtime.images.png import encode_png

pytestmark = pytest.mark.parametrize("case", ["digits"], indirect=True)
# The same graph on other batch sizes: float32 sums in another order.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def served(bundle: ExportedCase) -> SavedModelSession:
    return SavedModelSession(bundle.bundle.path)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (64, 16, 16, 1)).astype(np.float32)


def close(answer: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert answer.keys() == expected.keys()
    for name, want in expected.items():
        np.testing.assert_allclose(answer[name], want, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)


def take_rows(answer: dict[str, np.ndarray], rows: slice) -> dict[str, np.ndarray]:
    return {name: value[rows] for name, value in answer.items()}


def options(num_samples: object, seed: object) -> dict[str, np.ndarray]:
    return {"num_samples": np.array(num_samples, np.int32), "seed": np.array(seed, np.int32)}


def test_inputs_outputs_and_defaults(served: SavedModelSession) -> None:
    signatures = {name for name in served.signatures if not name.startswith("__")}
    assert signatures == {"serving_default", "sample", "draws", "mean", "encoded"}
    for name in signatures:
        assert all(tensor.tensor_shape.dim[0].size == -1 for tensor in served.signatures[name].inputs.values()), name
        assert all(tensor.tensor_shape.dim[0].size == -1 for tensor in served.signatures[name].outputs.values()), name
    for name in ("sample", "draws"):
        assert set(served.signatures[name].defaults) == {"num_samples", "seed"}


def test_images_alone_use_the_defaults(bundle: ExportedCase, served: SavedModelSession, images: np.ndarray) -> None:
    posterior = bundle.bundle.manifest.posterior
    expected = bundle.reference.combine_draws(images[:3], posterior.seed, posterior.order)
    close(served("sample", {"images": images[:3]}), expected)
    close(served("serving_default", {"images": images[:3]}), expected)
    close(served("mean", {"images": images[:3]}), bundle.reference.evaluate_mean(images[:3]))
    assert served("draws", {"images": images[:3]})["slant.mean"].shape == (3, posterior.samples, 1)


@pytest.mark.skipif(not has_bfloat16("cpu"), reason="this processor does not compute in bfloat16")
def test_a_server_computes_in_bfloat16_if_told_to(bundle: ExportedCase, images: np.ndarray) -> None:
    """bfloat16 has 8 bits, so that a layer's outputs are off by up to 2^-9 of their size, and not all by nothing."""
    exact = SavedModelSession(bundle.bundle.path)("serving_default", {"images": images})
    answer = SavedModelSession(bundle.bundle.path, bfloat16=True)("serving_default", {"images": images})
    for head in ("digit", "slant"):
        mean, expected = answer[f"{head}.mean"], exact[f"{head}.mean"]
        assert 0 < np.abs(mean - expected).max() < 0.02 * np.abs(expected).max(), head
        assert np.corrcoef(answer[f"{head}.epistemic"].ravel(), exact[f"{head}.epistemic"].ravel())[0, 1] > 0.95, head


def test_a_row_is_the_same_alone_and_among_others(served: SavedModelSession, images: np.ndarray) -> None:
    """Also with other numbers and seeds beside it, as server-side batching would merge them."""
    rng = np.random.default_rng(1)
    numbers, seeds = rng.integers(1, 12, 64), rng.choice([0, 3, 5, 2**31 - 1], 64)
    for signature in ("serving_default", "mean", "sample", "draws"):
        more = options(numbers, seeds) if signature in ("sample", "draws") else {}
        whole = served(signature, {"images": images, **more})
        for first, count in ((0, 1), (1, 2), (5, 7), (17, 33), (63, 1)):
            part = slice(first, first + count)
            own = {name: value[part] for name, value in more.items()}
            alone = served(signature, {"images": images[part], **own})
            close(alone, trim_draws(take_rows(whole, part), alone))


def default_inputs(served: SavedModelSession, signature: str) -> dict[str, np.ndarray]:
    return {name: tf.make_ndarray(value) for name, value in served.signatures[signature].defaults.items()}


def merge_requests(requests: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Merges requests as TensorFlow Serving does with --enable_batching: every input along the batch."""
    return {name: np.concatenate([request[name] for request in requests]) for name in requests[0]}


@pytest.mark.parametrize("signature", ["serving_default", "sample", "draws", "mean", "encoded"])
def test_requests_that_a_server_merges_are_answered_as_alone(
    served: SavedModelSession, images: np.ndarray, signature: str
) -> None:
    """A server feeds the defaults before it merges, so it merges them too."""
    requests: list[dict[str, np.ndarray]] = []
    for row in range(4):
        inputs = {"images": images[row : row + 1]}
        if signature == "encoded":
            inputs = {"image_bytes": np.array([encode_png(images[row].astype(np.uint8))], object)}
        requests.append(inputs | default_inputs(served, signature))
    if signature in ("sample", "draws"):
        requests[2] |= options([5], [9])
        requests[3] |= options([2], [9])
    alone = [served(signature, request) for request in requests]
    for rows in ([0, 1], [0, 2], [3, 1, 2, 0]):
        merged = served(signature, merge_requests([requests[row] for row in rows]))
        for place, row in enumerate(rows):
            close(trim_draws(take_rows(merged, slice(place, place + 1)), alone[row]), alone[row])


def trim_draws(answer: dict[str, np.ndarray], alone: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Removes the draws beyond a row's own number; all of them have to be NaN."""
    trimmed = dict(answer)
    for name, value in alone.items():
        if value.ndim > 1 and answer[name].shape[1] > value.shape[1]:
            assert np.isnan(answer[name][:, value.shape[1] :]).all(), name
            trimmed[name] = answer[name][:, : value.shape[1]]
    return trimmed


def test_calls_at_the_same_time(served: SavedModelSession, images: np.ndarray) -> None:
    calls = [("sample", {"images": images[:4], **options([n], [n])}) for n in range(1, 9)]
    calls += [("serving_default", {"images": images[:4]}), ("mean", {"images": images[:4]})] * 4
    alone = [served(*call) for call in calls]
    with ThreadPoolExecutor(8) as threads:
        for together, expected in zip(threads.map(lambda call: served(*call), calls), alone, strict=True):
            close(together, expected)


def test_bad_rows_and_bad_requests(served: SavedModelSession, images: np.ndarray) -> None:
    bad = images[:3].copy()
    for signature, wrong in itertools.product(("serving_default", "sample", "mean", "draws"), (np.nan, -1, 256, 1e30)):
        bad[1, 0, 0, 0] = wrong
        answer = served(signature, {"images": bad})
        assert all(np.isnan(value[1]).all() and np.isfinite(value[[0, 2]]).all() for value in answer.values())
        assert all(len(value) == 0 for value in served(signature, {"images": images[:0]}).values())
    answer = served("sample", {"images": images[:5], **options([4, 0, 4, 2**31 - 1, -3], [0, 0, -1, 0, 0])})
    assert np.isnan(answer["slant.mean"]).ravel().tolist() == [False, True, True, True, True]
    close(take_rows(answer, slice(1)), served("sample", {"images": images[:1], **options([4], [0])}))
    draws = served("draws", {"images": bad[:3], **options([4, 6, 2**31 - 1], [0, 0, 0])})["slant.mean"]
    assert np.isnan(draws[..., 0]).tolist() == [[False] * 4 + [True] * 2, [True] * 6, [True] * 6]
    for number, seed in ((0, 0), (-3, 0), (2**31 - 1, 0), (4, -1)):
        answer = served("draws", {"images": images[:2], **options([number], [seed])})
        assert all(len(value) == 2 and np.isnan(value).all() for value in answer.values())
        assert answer["slant.mean"].shape[1] == (4 if number == 4 else 1)
    for signature in ("sample", "draws"):
        with pytest.raises(RefusedError, match=r"[Ii]ncompatible shapes"):
            served(signature, {"images": images[:3], **options([4, 4], [0])})
    for signature in ("serving_default", "sample", "mean", "draws"):
        for wrong in (images[:2, :8], images[:2, :, :, 0], images[:2].reshape(2, 8, 32, 1), images[0, 0, 0, 0]):
            with pytest.raises(RefusedError, match=r"[Ss]hape"):
                served(signature, {"images": wrong})
    close(served("mean", {"images": images[:2]}), take_rows(served("mean", {"images": images[:3]}), slice(2)))


@pytest.mark.stress
def test_8000_calls_in_8_threads_equal_the_serial_ones(
    served: SavedModelSession, images: np.ndarray, measured: Callable[[str, str], None]
) -> None:
    """Bit for bit, with bad rows and refused requests among them; memory stays flat."""
    bad = images[:4].copy()
    bad[2] = np.nan
    calls: list[tuple[str, dict[str, np.ndarray]]] = [
        ("mean", {"images": images[:1]}),
        ("mean", {"images": bad}),
        ("mean", {"images": images[:0]}),
        ("sample", {"images": images[:2], **options([3, 5], [1, 0])}),
        ("sample", {"images": bad, **options([2, 0, 2**31 - 1, -3], [0, 0, 0, 0])}),
        ("draws", {"images": images[:1], **options([2], [7])}),
        ("draws", {"images": images[:, :8], **options([3], [7])}),
        ("serving_default", {"images": images[:1]}),
    ]

    def call(index: int) -> dict[str, bytes] | str:
        try:
            return {name: value.tobytes() for name, value in served(*calls[index % len(calls)]).items()}
        except RefusedError as error:
            return str(error)

    serial = [call(index) for index in range(len(calls))]
    assert sum(isinstance(answer, str) for answer in serial) == 1
    process = psutil.Process()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(call, range(200)))
        before = process.memory_info().rss
        answers = threads.map(call, range(8000))
        differing = sum(answer != serial[index % len(calls)] for index, answer in enumerate(answers))
    growth = (process.memory_info().rss - before) / 1e6
    measured(
        "8,000 calls of the C++ loader in 8 threads, bad rows and requests among them",
        f"{differing} differ from the serial ones, memory grew by {growth:.0f} MB",
    )
    assert not differing
    assert growth < 500


def test_warm_up_records_can_be_answered(bundle: ExportedCase, served: SavedModelSession) -> None:
    """Replays each one; those with a number and a seed have one per row."""
    folder = bundle.bundle.path / tf_serving.FOLDER
    replayed = []
    for record in tf.data.TFRecordDataset(str(folder / tf_serving.WARMUP)):
        (request,) = find_messages(memoryview(record.numpy()), 6, 1)
        (spec,) = find_messages(request, 1)
        tensors = {
            read_text(entry, 1): tf.make_ndarray(
                tensor_pb2.TensorProto.FromString(bytes(next(find_messages(entry, 2))))
            )
            for entry in find_messages(request, 2)
        }
        assert read_text(spec, 1) == "digits"
        assert set(tensors) == set(served.signatures[read_text(spec, 3)].inputs)
        (count,) = {len(value) for value in tensors.values()}
        answer = served(read_text(spec, 3), tensors)
        assert all(len(value) == count and np.isfinite(value).all() for value in answer.values())
        replayed.append((read_text(spec, 3), count))
    signatures = ("serving_default", "mean", "sample", "draws", "encoded")
    assert replayed == [(signature, count) for count in (1, 4) for signature in signatures]
    assert "max_execution_batch_size { value: 64 }" in (folder / tf_serving.BATCHING).read_text()
