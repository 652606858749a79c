"""One predictor, used by several threads at once, answers as it does alone."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.errors import InputError
from probrt.runtime.predict.answer import Prediction
from probrt.runtime.predict.predictor import load_predictor

THREADS, CALLS = 8, 12


def flatten(prediction: Prediction) -> dict[str, bytes]:
    """Returns the bytes of every quantity."""
    return {
        f"{head}.{name}": values.tobytes()
        for head, answer in prediction.heads.items()
        for name, values in answer.quantities.items()
    }


@pytest.mark.parametrize("engine", ["litert", "onnxruntime"])
@pytest.mark.parametrize("variant", ["draws", "sampled"])
def test_eight_threads_get_the_serial_answers(bundle: Bundle, engine: str, variant: str) -> None:
    rng = np.random.default_rng(0)
    images = [rng.uniform(0, 255, (1 + i % 5, 12, 12, 1)).astype(np.float32) for i in range(THREADS * CALLS)]
    serial_predictor = load_predictor(bundle, engine=engine, variant=variant)
    serial = [flatten(serial_predictor(batch)) for batch in images]
    predictor = load_predictor(bundle, engine=engine, variant=variant)
    begin = threading.Barrier(THREADS)

    def predict(first: int) -> list[dict[str, bytes]]:
        begin.wait()  # the first calls, which load the graphs, meet too
        answers = []
        for batch in images[first::THREADS]:
            with pytest.raises(InputError, match="takes"):
                predictor(batch[..., 0])  # a fault of one call is none of the others
            answers.append(flatten(predictor(batch)))
        return answers

    with ThreadPoolExecutor(THREADS) as pool:
        parallel = list(pool.map(predict, range(THREADS)))
    for first, answers in enumerate(parallel):
        assert answers == serial[first::THREADS]
