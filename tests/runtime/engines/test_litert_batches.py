"""LiteRT keeps an interpreter for each small batch size that comes back, and answers the same in any order."""

import numpy as np
import pytest

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.engines import litert
from probrt.runtime.engines.litert import LiteRT

images = np.random.default_rng(5).integers(0, 256, (64, 12, 12, 1)).astype(np.float32)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch sizes that the interpreters met, one number per change."""
    met: list[int] = []
    run = litert._Interpreter.run
    latest: dict[int, int] = {}

    def record(interpreter: litert._Interpreter, inputs: dict[str, np.ndarray], signature: str) -> object:
        count = len(inputs["images"])
        if latest.get(id(interpreter)) != count:
            met.append(count)
        latest[id(interpreter)] = count
        return run(interpreter, inputs, signature)

    monkeypatch.setattr(litert._Interpreter, "run", record)
    return met


@pytest.fixture
def graph(bundle: Bundle) -> LiteRT:
    return LiteRT(bundle.read(bundle.files("tflite", "draws")[0]), 1)


def test_a_single_image_between_batches_allocates_nothing(graph: LiteRT, sizes: list[int]) -> None:
    for size in (64, 1, 64, 1, 64, 1, 64, 1, 64, 33, 64, 33):
        graph({"images": images[:size]})
    # 1 twice in the first interpreter's way, then in its own; larger ones always change the size.
    assert sizes == [64, 1, 64, 1, 33, 64, 33]


def test_one_size_alone_needs_one_interpreter(graph: LiteRT, sizes: list[int]) -> None:
    for size in (1, 1, 1, 1):
        graph({"images": images[:size]})
    assert sizes == [1]
    assert not graph._by_size


def test_sizes_in_any_order_answer_alike(graph: LiteRT) -> None:
    expected = graph({"images": images})
    order = [*range(1, 9), 33, 64] * 3
    np.random.default_rng(2).shuffle(order)
    for size in order:
        for name, values in graph({"images": images[:size]}).items():
            np.testing.assert_allclose(values, expected[name][:size], rtol=1e-6, atol=1e-6, err_msg=f"{name}, {size}")
    assert len(graph._by_size) == litert.SMALL
