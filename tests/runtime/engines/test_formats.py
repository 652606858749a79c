"""The table of formats: which calls give the draws of a request, and what each call passes to its graph."""

from typing import Any, get_args

import numpy as np
import pytest

from probrt.runtime.bundle import manifest
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.engines.formats import FORMATS, Call, CannotAnswer, Draws
from probrt.runtime.engines.table import BUILT_IN

SEED = 7  # of the bank, which holds 2 chunks of 4 draws


class RecordingGraph:
    """A graph that returns its inputs and keeps the signature."""

    signature = ""

    def __call__(self, inputs: Any, signature: str = "serving_default") -> Any:
        self.signature = signature
        return inputs


def plan(bundle: Bundle, format: str, variant: str, wanted: Draws | None) -> tuple[Call, ...]:
    source = FORMATS[format][variant]
    return source.plan_calls(source.find_files(bundle, format, "float32"), wanted, bundle.manifest.posterior)


def test_every_format_of_the_manifest_has_a_row_and_an_engine() -> None:
    assert FORMATS.keys() == {*get_args(manifest.Format)} == {engine.format for engine in BUILT_IN}
    for sources in FORMATS.values():
        assert {variant: source.variant for variant, source in sources.items()} == {name: name for name in sources}


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_a_bank_answers_by_whole_files(bundle: Bundle, format: str) -> None:
    calls = plan(bundle, format, "draws", Draws(SEED, 0, 8))
    assert [call.draws for call in calls] == [Draws(SEED, 0, 4), Draws(SEED, 4, 4)]
    assert [file.path for call in calls for file in call.files] == [f"draws-00.{format}", f"draws-01.{format}"]
    assert len(plan(bundle, format, "draws", Draws(SEED, 0, 4))) == 1
    with pytest.raises(CannotAnswer, match="its bank gives --samples 4, 8, not 5"):
        plan(bundle, format, "draws", Draws(SEED, 0, 5))
    with pytest.raises(CannotAnswer, match="its bank answers for seed 7 only"):
        plan(bundle, format, "draws", Draws(1, 0, 8))


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_a_seeded_file_answers_for_one_chunk_per_call(bundle: Bundle, format: str) -> None:
    calls = plan(bundle, format, "sampled", Draws(3, 0, 12))
    assert [call.draws for call in calls] == [Draws(3, start, 4) for start in (0, 4, 8)]
    assert {call.files[0].path for call in calls} == {f"sampled.{format}"}
    with pytest.raises(CannotAnswer, match="multiples of 4, not 6"):
        plan(bundle, format, "sampled", Draws(3, 0, 6))


def test_a_saved_model_answers_for_any_number_in_one_call(bundle: Bundle) -> None:
    (call,) = plan(bundle, "savedmodel", "sampled", Draws(3, 0, 21))
    assert call.draws == Draws(3, 0, 21)
    assert plan(bundle, "savedmodel", "mean", None)[0].draws is None
    assert "draws" not in FORMATS["savedmodel"]


def test_adaptive_calls_add_chunks_or_double_the_number(bundle: Bundle) -> None:
    for format, variant, counts in (
        ("tflite", "mean", [None]),
        ("tflite", "draws", [4, 4]),
        ("onnx", "sampled", [4, 4]),
        ("savedmodel", "sampled", [8]),
    ):
        calls = plan(bundle, format, variant, None if variant == "mean" else Draws(SEED, 0, 8))
        adaptive = FORMATS[format][variant].plan_adaptive_calls(calls)
        assert [call.draws and call.draws.count for call in adaptive] == counts
    source = FORMATS["savedmodel"]["sampled"]
    for samples, counts in ((5, [5]), (16, [8, 16]), (21, [8, 16, 21])):
        calls = source.plan_adaptive_calls(plan(bundle, "savedmodel", "sampled", Draws(3, 0, samples)))
        assert [call.draws for call in calls] == [Draws(3, 0, count) for count in counts]


@pytest.mark.parametrize(
    ("format", "variant", "inputs", "signature"),
    [
        ("tflite", "mean", {}, "serving_default"),
        ("tflite", "draws", {}, "serving_default"),
        ("onnx", "sampled", {"seed": 3, "start": 4}, "serving_default"),
        ("savedmodel", "mean", {}, "mean"),
        ("savedmodel", "sampled", {"seed": 3, "num_samples": 8}, "sample"),
    ],
)
def test_a_call_passes_its_draws(format: str, variant: str, inputs: dict[str, int], signature: str) -> None:
    graph, images = RecordingGraph(), np.zeros((2, 3), np.float32)
    outputs = FORMATS[format][variant].run(graph, images, None if variant == "mean" else Draws(3, 4, 8))
    assert outputs.pop("images") is images
    assert {name: values.tolist() for name, values in outputs.items()} == {k: [v] for k, v in inputs.items()}
    assert all(values.dtype == np.int32 for values in outputs.values())
    assert graph.signature == signature
