"""OpenVINO compiles few batch sizes, and answers the same whatever sizes came before."""

import numpy as np
import pytest

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.engines import BUILT_IN, openvino
from probrt.runtime.engines.graph import Graph
from probrt.runtime.engines.openvino import OpenVino, round_batch

images = np.random.default_rng(5).integers(0, 256, (64, 12, 12, 1)).astype(np.float32)


def load_bank(bundle: Bundle, name: str) -> Graph:
    (engine,) = (engine for engine in BUILT_IN if engine.name == name)
    return engine.load_graph(bundle, bundle.files(engine.format, "draws")[:1], "cpu", 1)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch sizes that were compiled, in order."""
    sizes: list[int] = []
    compile_shape = OpenVino._compile

    def record(graph: OpenVino, shape: tuple[int, ...]) -> object:
        sizes.append(shape[0])
        return compile_shape(graph, shape)

    monkeypatch.setattr(OpenVino, "_compile", record)
    return sizes


def test_rounded_sizes_are_few_and_near() -> None:
    sizes = {count: round_batch(count) for count in range(1, 1025)}
    assert all(count <= size < 1.25 * count for count, size in sizes.items())
    assert all(round_batch(size) == size for size in sizes.values())
    assert sorted({sizes[count] for count in range(1, 65)}) == [
        *range(1, 9), 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64,
    ]  # fmt: skip


def test_a_size_that_comes_back_is_compiled(bundle: Bundle, compiled: list[int]) -> None:
    """One remainder is padded, a single image that comes again is not."""
    graph = load_bank(bundle, "openvino")
    for size in (33, 33, 1, 1, 1, 33, 30, 64, 50, 50, 51, 52):
        graph({"images": images[:size]})
    # 33 and 64 as they are; 1 at its second time; 30 fits 33; 50 to 52 share 56 from the second time on.
    assert compiled == [33, 1, 64, 56]


@pytest.mark.slow
def test_sizes_in_any_order_answer_alike(bundle: Bundle, compiled: list[int]) -> None:
    """Every row equals LiteRT's, and its first answer but for rounding (here to the bit), whatever the batch."""
    graph = load_bank(bundle, "openvino")
    expected = load_bank(bundle, "litert")({"images": images})
    first = graph({"images": images})
    order = [*range(1, 65)] * 3
    np.random.default_rng(1).shuffle(order)
    for size in order:
        answer = graph({"images": images[:size]})
        for name, values in answer.items():
            assert len(values) == size
            np.testing.assert_allclose(values, expected[name][:size], atol=1e-4, err_msg=name)
            np.testing.assert_allclose(values, first[name][:size], rtol=1e-6, atol=1e-6, err_msg=f"{name}, {size}")
    assert len(compiled) == len(set(compiled)) <= 20


@pytest.mark.slow
def test_large_files_keep_few_sizes(bundle: Bundle, compiled: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "MAX_BYTES", 1)
    graph = load_bank(bundle, "openvino")
    assert isinstance(graph, OpenVino)
    for size in (1, 2, 3, 4, 5, 5, 4, 3, 2):
        graph({"images": images[:size]})
    assert len(graph._requests) == openvino.MIN_SIZES
    assert compiled == [1, 2, 3, 4, 5]
