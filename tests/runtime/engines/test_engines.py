"""Every engine and variant of a real bundle gives the same numbers for the same draws; refused requests."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.engines import BUILT_IN
from probrt.runtime.errors import BundleError, InputError, MissingError, UsageError
from probrt.runtime.predict.answer import Prediction, make_answer
from probrt.runtime.predict.predictor import load_predictor

CASES = [
    (engine.name, variant)
    for engine in BUILT_IN
    for variant in ("mean", "draws", "sampled")
    if (engine.name, variant) != ("tensorflow", "draws") and (engine.words or variant != "sampled")
]
images = np.random.default_rng(3).integers(0, 256, (5, 12, 12, 1)).astype(np.float32)


def assert_close(a: Prediction, b: Prediction) -> None:
    for head in b.heads:
        assert a[head].quantities.keys() == b[head].quantities.keys()
        for name, values in b[head].quantities.items():
            np.testing.assert_allclose(a[head].quantities[name], values, atol=1e-4, err_msg=f"{head}.{name}")


@pytest.fixture(scope="module")
def reference(bundle: Bundle) -> dict[str, Prediction]:
    """TensorFlow's answers, the posterior mean and eight draws."""
    tensorflow = {
        variant: load_predictor(bundle, engine="tensorflow", variant=variant) for variant in ("mean", "sampled")
    }
    return {variant: predictor(images) for variant, predictor in tensorflow.items()}


@pytest.mark.parametrize(("engine", "variant"), CASES)
def test_all_engines_give_the_same_numbers(
    bundle: Bundle, reference: dict[str, Prediction], engine: str, variant: str
) -> None:
    predictor = load_predictor(bundle, engine=engine, variant=variant)
    prediction = predictor(images)
    assert_close(prediction, reference["mean" if variant == "mean" else "sampled"])
    assert prediction.draws.tolist() == [0 if variant == "mean" else 8] * 5
    assert_close(predictor(images[:2]), Prediction(take_first(prediction, 2), prediction.draws[:2]))


def take_first(prediction: Prediction, count: int) -> dict[str, object]:
    return {
        head: make_answer({name: values[:count] for name, values in answer.quantities.items()})
        for head, answer in prediction.heads.items()
    }


@pytest.mark.parametrize("name", ["mean", "draws-00", "sampled"])
def test_litert_s_compiled_model_agrees_with_its_interpreter(bundle: Bundle, name: str) -> None:
    """Runs on the CPU, with the same buffers and sizes as on a GPU, because few machines have one."""
    from probrt.runtime.engines.litert import Compiled, LiteRT

    (file,) = (file for file in bundle.manifest.files if file.path == f"{name}.tflite")
    content = bundle.read(file)
    compiled, interpreted = Compiled(content, "CPU"), LiteRT(content, 1)
    more = {"seed": np.array([7], np.int32), "start": np.array([4], np.int32)} if name == "sampled" else {}
    for batch in (5, 2, 1, 5):
        inputs = {"images": images[:batch], **more}
        answer, expected = compiled(inputs), interpreted(inputs)
        assert answer.keys() == expected.keys()
        for output, values in expected.items():
            np.testing.assert_allclose(answer[output], values, atol=1e-5, err_msg=output)


def test_a_gpu_that_does_not_answer_is_one_line(bundle: Bundle, tmp_path: Path) -> None:
    """The accelerator's library is there, and Vulkan finds no driver."""
    script = (
        "import sys; from probrt.runtime.bundle.bundle import Bundle; from probrt.runtime.engines import litert;"
        "from probrt.runtime.errors import MissingError;"
        "litert.devices = lambda: ('gpu', 'cpu'); bundle = Bundle.open(sys.argv[1]);"
        "\ntry: litert.load(bundle, bundle.files('tflite', 'mean'), 'gpu', 1)"
        "\nexcept MissingError as error: print(error)"
    )
    nothing = {name: str(tmp_path / "none.json") for name in ("VK_ICD_FILENAMES", "VK_DRIVER_FILES")}
    result = subprocess.run(
        [sys.executable, "-c", script, bundle.path],
        env=os.environ | nothing,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "litert finds no device gpu here (it has: cpu); see `probrt doctor`\n"


def test_the_mean_has_no_epistemic_part(reference: dict[str, Prediction]) -> None:
    for answer in reference["mean"].heads.values():
        assert answer.epistemic is None
        assert answer.total is None
        assert answer.aleatoric is not None


def test_draws_differ_and_batches_do_not_matter(bundle: Bundle, reference: dict[str, Prediction]) -> None:
    for answer in reference["sampled"].heads.values():
        assert answer.epistemic is not None
        assert (answer.epistemic.reshape(5, -1).max(1) > 1e-4).all()
    singles = load_predictor(bundle, engine="litert", batch_size=1)(images)
    assert_close(singles, reference["sampled"])


def test_seeds_and_numbers_of_draws(bundle: Bundle) -> None:
    four = load_predictor(bundle, engine="litert", samples=4)(images)
    assert_close(four, load_predictor(bundle, engine="tensorflow", samples=4)(images))
    other = load_predictor(bundle, engine="onnxruntime", samples=12, seed=1)
    assert other.plan.variant == "sampled"
    assert_close(other(images), load_predictor(bundle, engine="tensorflow", samples=12, seed=1)(images))
    assert np.abs(other(images)["slant"].mean - four["slant"].mean).max() > 1e-3


def test_the_request_decides_the_engine(bundle: Bundle) -> None:
    assert load_predictor(bundle).plan.engine.name == "openvino"
    assert load_predictor(bundle, samples=5).plan.engine.name == "tensorflow"
    assert load_predictor(bundle, samples=16).plan.variant == "sampled"


@pytest.mark.parametrize(
    ("request_options", "error", "message"),
    [
        ({"samples": 0}, UsageError, "at least 1"),
        ({"samples": -3}, UsageError, "at least 1"),
        ({"samples": 65}, UsageError, "at most 64"),
        ({"samples": 5, "engine": "litert"}, UsageError, r"gives --samples 4, 8, not 5.*multiples of 4.*tensorflow"),
        ({"seed": 3, "variant": "draws"}, UsageError, "answers for seed 7 only"),
        ({"seed": -1}, UsageError, "from 0"),
        ({"variant": "best"}, UsageError, "mean, draws, sampled"),
        ({"samples": 8, "variant": "mean"}, UsageError, "no epistemic uncertainty"),
        ({"engine": "abacus"}, UsageError, "choose auto or one of openvino, litert"),
        ({"precision": "int8"}, UsageError, "no int8 onnx file"),
        ({"engine": "litert", "device": "cuda"}, MissingError, "no device cuda here"),
        ({"engine": "litert", "device": "directml"}, MissingError, "no device directml here"),
        ({"engine": "onnxruntime", "device": "cuda"}, MissingError, "no device cuda here"),
        ({"engine": "openvino", "device": "gpu"}, MissingError, "no device gpu here"),
        ({"engine": "tensorflow", "device": "cuda"}, MissingError, "no device cuda here"),
    ],
)
def test_impossible_requests_are_refused_with_a_way_out(
    bundle: Bundle, request_options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_predictor(bundle, **request_options)


def test_a_bundle_of_the_mean_alone_has_no_epistemic_part(
    bundle: Bundle, tmp_path: Path, rewrite: Callable[[Path], Bundle]
) -> None:
    folder = tmp_path / "1"
    folder.mkdir()
    for name in ("mean.tflite", "mean.onnx"):
        shutil.copy(bundle.path / name, folder)
    only = rewrite(folder)
    assert load_predictor(only).plan.variant == "mean"
    with pytest.raises(UsageError, match="no epistemic uncertainty"):
        load_predictor(only, samples=8)
    with pytest.raises(UsageError, match="holds no draws; choose --variant mean"):
        load_predictor(only, variant="draws")
    with pytest.raises(UsageError, match="no savedmodel file"):
        load_predictor(only, engine="tensorflow")


def test_answers_that_are_not_finite_are_error_rows(bundle: Bundle) -> None:
    huge = np.full((2, 12, 12, 1), 1e38, np.float32)
    huge[0] = 1
    faults = load_predictor(bundle, engine="litert")(huge).faults
    assert faults[0] == ""
    assert "is not finite for this image" in faults[1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (images[0], r"\[12, 12, 1\]; the model takes \[batch, 12, 12, 1\]"),
        (images[:0], "takes"),
        (images * np.nan, "finite"),
    ],
)
def test_wrong_arrays_are_refused(bundle: Bundle, wrong: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_predictor(bundle, engine="litert")(wrong)


@pytest.mark.parametrize(
    ("engine", "name"),
    [
        ("litert", "mean.tflite"),
        ("onnxruntime", "mean.onnx"),
        ("openvino", "mean.onnx"),
        ("tensorflow", "saved_model.pb"),
    ],
)
def test_altered_files_are_refused_before_they_are_parsed(
    bundle: Bundle, tmp_path: Path, engine: str, name: str
) -> None:
    copy = tmp_path / "1"
    shutil.copytree(bundle.path, copy)
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name}: was altered after export"):
        load_predictor(Bundle.open(copy), engine=engine, variant="mean")(images)
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: missing"):
        load_predictor(Bundle.open(copy), engine=engine, variant="mean")(images)
