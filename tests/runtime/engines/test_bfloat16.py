"""`--precision bfloat16`: the arithmetic of OpenVINO on processors that have it, with the float32 files."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.engines import BUILT_IN, openvino
from probrt.runtime.engines.outputs import BFLOAT16_TOLERANCE
from probrt.runtime.errors import UsageError
from probrt.runtime.predict.predictor import load_predictor

needs_bfloat16 = pytest.mark.skipif(
    not openvino.has_bfloat16("cpu"), reason="this processor does not compute in bfloat16"
)
images = np.random.default_rng(3).integers(0, 256, (20, 12, 12, 1)).astype(np.float32)


@needs_bfloat16
@pytest.mark.parametrize("variant", ["mean", "draws"])
def test_answers_are_near_those_of_float32_and_not_the_same(bundle: Bundle, variant: str) -> None:
    exact = load_predictor(bundle, engine="openvino", variant=variant)(images)
    predictor = load_predictor(bundle, variant=variant, precision="bfloat16")
    assert (predictor.plan.engine.name, predictor.plan.precision) == ("openvino", "bfloat16")
    coarse = predictor(images)
    differences = []
    for head, answer in exact.heads.items():
        for name, values in answer.quantities.items():
            difference = np.abs(coarse[head].quantities[name] - values)
            assert difference.max() <= BFLOAT16_TOLERANCE * max(1.0, np.abs(values).max()), f"{head}.{name}"
            differences.append(difference.max())
        if variant == "draws":
            spread, expected = (prediction[head].epistemic for prediction in (coarse, exact))
            assert spread is not None
            assert expected is not None
            assert np.corrcoef(spread.ravel(), expected.ravel())[0, 1] > 0.99
    assert max(differences) > 1e-4  # float32 differs by less between engines


@needs_bfloat16
def test_the_default_stays_float32(bundle: Bundle) -> None:
    plan = load_predictor(bundle).plan
    assert (plan.engine.name, plan.precision) == ("openvino", "float32")


@pytest.mark.parametrize("engine", [engine.name for engine in BUILT_IN if engine.name != "openvino"])
def test_other_engines_refuse_in_a_line(bundle: Bundle, engine: str) -> None:
    with pytest.raises(UsageError, match=f"{engine}: does not compute in bfloat16"):
        load_predictor(bundle, engine=engine, precision="bfloat16")


def test_a_processor_without_it_is_named(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "has_bfloat16", lambda device: False)
    with pytest.raises(
        UsageError, match="openvino: the cpu of this machine does not compute in bfloat16; litert: does"
    ):
        load_predictor(bundle, precision="bfloat16")


@needs_bfloat16
@pytest.mark.slow
def test_rows_the_record_and_replay_say_it(bundle: Bundle, called: Callable[..., object], tmp_path: Path) -> None:
    from PIL import Image

    for index, image in enumerate(images[:3]):
        Image.fromarray(image[..., 0].astype(np.uint8)).save(tmp_path / f"{index}.png")
    options = ("--bundle", bundle.path, "--precision", "bfloat16", "--maps", "none")
    result = called("predict", *options, *sorted(tmp_path.glob("*.png")), cwd=tmp_path)
    assert (result.code, "openvino on cpu, bfloat16, draws, 8 draws" in result.err) == (0, True)
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert {(row["engine"], row["precision"]) for row in rows} == {("openvino", "bfloat16")}
    record = json.loads((tmp_path / "predictions.jsonl.run.json").read_text())
    assert record["settings"]["precision"] == "bfloat16"
    again = called("replay", "predictions.jsonl", "--bundle", bundle.path, cwd=tmp_path)
    assert (again.code, "3 rows repeated on openvino: none differ" in again.out) == (0, True)
