"""V2 requests to a bundle: without a server, and through the real MLServer."""

import base64
import io
import json
import os
import subprocess
import sys
import sysconfig
import urllib.error
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_servers import ROOT, Server, find_free_port, install_packages, serve
from PIL import Image

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.errors import ImageError, ProbrtError, UsageError
from probrt.runtime.predict.predictor import load_predictor
from probrt.runtime.serving.open_inference import OpenInference, TensorSpec

# The same graph on the same engine, in other batches.
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def inference(bundle: Bundle) -> OpenInference:
    return OpenInference(bundle, engine="litert")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 12, 12, 1)).astype(np.float32)


def encode(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image[..., 0].astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def test_metadata(inference: OpenInference) -> None:
    assert inference.inputs == [
        TensorSpec("images", "FP32", (-1, 12, 12, 1)),
        TensorSpec("image_bytes", "BYTES", (-1,)),
    ]
    specs = {spec.name: spec.shape for spec in inference.outputs}
    assert specs["shape.mean"] == (-1, 3)
    assert specs["shape.total"] == (-1,)
    assert specs["ink.epistemic"] == (-1, 12, 12, 1)


@pytest.mark.parametrize(
    "parameters", [{}, {"samples": 4}, {"samples": 8, "seed": 3}, {"variant": "mean"}], ids=lambda value: str(value)
)
def test_answers_are_those_of_predict(
    bundle: Bundle, inference: OpenInference, images: np.ndarray, parameters: dict[str, Any]
) -> None:
    expected = load_predictor(bundle, engine="litert", **parameters)(images)
    for inputs in ({"images": images}, {"image_bytes": [encode(image) for image in images]}):
        response = inference.infer(inputs, parameters)
        names = {f"{head}.{name}" for head, answer in expected.heads.items() for name in answer.quantities}
        assert response.outputs.keys() == names
        for name, values in response.outputs.items():
            head, quantity = name.split(".")
            np.testing.assert_allclose(values, expected[head].quantities[quantity], atol=TOLERANCE)
    assert response.parameters.get("samples") == (None if "variant" in parameters else parameters.get("samples", 8))
    assert response.parameters.get("seed") == (None if "variant" in parameters else parameters.get("seed", 7))


def test_named_outputs_come_in_the_order_asked_for(inference: OpenInference, images: np.ndarray) -> None:
    assert [*inference.infer({"images": images}, {}, ["slant.total", "shape.mean"]).outputs] == [
        "slant.total",
        "shape.mean",
    ]


def test_graphs_are_loaded_once(inference: OpenInference, images: np.ndarray) -> None:
    for seed in range(3):
        inference.infer({"images": images}, {"samples": 4, "seed": seed})
    predictors = [inference._find_predictor(4, seed, None) for seed in range(3)]
    assert len({id(predictor._graphs["sampled.tflite"]) for predictor in predictors}) == 1


@pytest.mark.parametrize(
    ("inputs", "parameters", "outputs", "error", "message"),
    [
        ({}, {}, [], UsageError, "inputs none: send one, images or image_bytes"),
        ({"images": 1, "image_bytes": 1}, {}, [], UsageError, "inputs images, image_bytes: send one"),
        ({"pixels": 1}, {}, [], UsageError, "inputs pixels"),
        ({"images": np.zeros((0, 12, 12, 1))}, {}, [], UsageError, "input images: has no rows"),
        ({"images": np.zeros((2, 5, 5, 1))}, {}, [], ImageError, r"input images, row 0: an array of shape \[5, 5, 1\]"),
        ({"images": np.full((1, 12, 12, 1), np.nan)}, {}, [], ImageError, "row 0: holds values that are not finite"),
        ({"images": np.full((1, 12, 12, 1), 300)}, {}, [], ImageError, "row 0: holds values from 300 to 300"),
        ({"image_bytes": [b"no picture"]}, {}, [], ImageError, "input image_bytes, row 0: "),
        (None, {"samples": 3}, [], UsageError, "gives --samples 4, 8, not 3"),
        (None, {"samples": True}, [], UsageError, "parameter samples: is True; it has to be an integer"),
        (None, {"samples": 10**9}, [], UsageError, "gives at most 64"),
        (None, {"seed": -1}, [], UsageError, "--seed -1: from 0"),
        (None, {"variant": 3}, [], UsageError, "parameter variant: is 3"),
        (None, {"variant": "mean"}, ["slant.total"], UsageError, "output slant.total: choose from shape.mean"),
    ],
)  # fmt: skip
def test_refusals(
    inference: OpenInference, images: np.ndarray, inputs: Any, parameters: Any, outputs: Any,
    error: type[ProbrtError], message: str,
) -> None:  # fmt: skip
    with pytest.raises(error, match=message):
        inference.infer({"images": images} if inputs is None else inputs, parameters, outputs)


@pytest.fixture
def mlserver(bundle: Bundle, tmp_path: Path) -> Iterator[tuple[Server, dict[str, str]]]:
    """MLServer with a model folder of one bundle; also its environment."""
    # Newer ones refuse what MLServer's workers ask for: an event loop before there is one.
    packages = install_packages("mlserver-1.7.1", "mlserver==1.7.1", "uvloop==0.21.0")
    (tmp_path / "site" / "probrt").mkdir(parents=True)
    (tmp_path / "site" / "probrt" / "runtime").symlink_to(ROOT / "runtime")
    settings = {
        "name": "shapes",
        "implementation": "probrt.runtime.serving.mlserver_model.OpenInferenceModel",
        "parameters": {"uri": str(bundle.path.parent), "extra": {"engine": "litert"}},
    }
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model-settings.json").write_text(json.dumps(settings))
    ports = {name: find_free_port() for name in ("HTTP_PORT", "GRPC_PORT", "METRICS_PORT")}
    paths = os.pathsep.join(map(str, (packages, tmp_path / "site", sysconfig.get_path("purelib"))))
    env = os.environ | {f"MLSERVER_{name}": str(port) for name, port in ports.items()}
    env |= {"MLSERVER_HOST": "127.0.0.1", "MLSERVER_PARALLEL_WORKERS": "1", "PYTHONPATH": paths}
    command = [sys.executable, "-c", "from mlserver.cli import main; main()", "start", tmp_path / "models"]
    with serve(command, ports["HTTP_PORT"], tmp_path / "mlserver.log", env) as server:
        server.wait_until("/v2/models/shapes/ready")
        yield server, env


def make_input(values: np.ndarray | list[bytes]) -> dict[str, Any]:
    """Returns an input as JSON has it."""
    if isinstance(values, np.ndarray):
        return {"name": "images", "datatype": "FP32", "shape": list(values.shape), "data": values.ravel().tolist()}
    data = [base64.b64encode(value).decode() for value in values]
    return {"name": "image_bytes", "datatype": "BYTES", "shape": [len(data)], "data": data}


def read_outputs(response: dict[str, Any]) -> dict[str, np.ndarray]:
    return {
        output["name"]: np.array(output["data"], np.float32).reshape(output["shape"]) for output in response["outputs"]
    }


GRPC = """
import json, os, sys
import grpc
from mlserver.grpc import dataplane_pb2 as pb, dataplane_pb2_grpc
files = [open(path, "rb").read() for path in sys.argv[1:]]
request = pb.ModelInferRequest(model_name="shapes")
request.inputs.add(name="image_bytes", datatype="BYTES", shape=[len(files)]).contents.bytes_contents.extend(files)
request.parameters["samples"].int64_param = 4
with grpc.insecure_channel(f"127.0.0.1:{os.environ['MLSERVER_GRPC_PORT']}") as channel:
    answer = dataplane_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
print(json.dumps({output.name: list(output.contents.fp32_contents) for output in answer.outputs}))
"""


@pytest.mark.stress
def test_a_real_mlserver(
    mlserver: tuple[Server, dict[str, str]],
    bundle: Bundle,
    images: np.ndarray,
    tmp_path: Path,
    measured: Callable[[str, str], None],
) -> None:
    server, env = mlserver
    path = "/v2/models/shapes/infer"
    metadata = server.get("/v2/models/shapes")
    assert (metadata["name"], metadata["platform"], metadata["versions"]) == ("shapes", "probrt", ["1"])
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["images", "image_bytes"]
    assert {"name": "shape.mean", "datatype": "FP32", "shape": [-1, 3]}.items() <= metadata["outputs"][0].items()
    files = [encode(image) for image in images]

    def ask(parameters: dict[str, Any]) -> float:
        """Asks with arrays and with files; returns the largest difference from `predict`."""
        expected = load_predictor(bundle, engine="litert", **parameters)(images)
        largest = 0.0
        for values in (images, files):
            response = server.post(path, {"inputs": [make_input(values)], "parameters": parameters})
            assert response["parameters"].items() >= parameters.items()
            for name, value in read_outputs(response).items():
                head, quantity = name.split(".")
                want = expected[head].quantities[quantity]
                np.testing.assert_allclose(value, want, atol=TOLERANCE, err_msg=name)
                largest = max(largest, float(np.abs(value - want).max()))
        return largest

    settings = [{}, {"samples": 4}, *({"samples": 8, "seed": seed} for seed in range(8))]
    differences = [ask(parameters) for parameters in settings]
    with ThreadPoolExecutor(8) as threads:
        differences += threads.map(ask, settings * 8)
    named = {"inputs": [make_input(images)], "outputs": [{"name": "slant.total"}, {"name": "shape.mean"}]}
    assert [*read_outputs(server.post(path, named))] == ["slant.total", "shape.mean"]

    for row, file in enumerate(files):
        (tmp_path / f"{row}.png").write_bytes(file)
    command = [sys.executable, "-c", GRPC, *(tmp_path / f"{row}.png" for row in range(len(files)))]
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    expected = load_predictor(bundle, engine="litert", samples=4)(images)["shape"].mean
    np.testing.assert_allclose(json.loads(result.stdout)["shape.mean"], expected.ravel(), atol=TOLERANCE)

    bad = images.copy()
    bad[3] = 300
    refusals = [
        ({"inputs": [make_input(bad)]}, "input images, row 3: holds values from 300 to 300"),
        ({"inputs": [make_input([files[0], b"no picture"])]}, "input image_bytes, row 1: "),
        ({"inputs": [make_input(files) | {"data": ["!"]}]}, "is not base64"),
        ({"inputs": [make_input(images) | {"shape": [7]}]}, "its data are not numbers of shape [7]"),
        ({"inputs": [make_input(images)], "parameters": {"samples": 3}}, "gives --samples 4, 8, not 3"),
    ]
    for request, message in refusals:
        with pytest.raises(urllib.error.HTTPError) as caught:
            server.post(path, request)
        assert caught.value.code == 400
        assert message in json.load(caught.value)["error"]
    measured(
        "MLServer 1.7.1: raw images and PNGs, draws and seeds as parameters, 8 clients at once",
        f"{2 * len(differences)} answers equal to predict to {max(differences):.1g}; {len(refusals)} bad requests "
        "refused with their reasons",
    )
