"""The model repository for Triton: its files, and the real server with them."""

from __future__ import annotations

import os
import re
import shutil
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from exported_cases import ExportedCase
from model_servers import ROOT, Server, find_free_port, install_packages, serve

from probrt.exporter import triton
from probrt.exporter.export import export
from probrt.exporter.plan import ExportRequest
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.errors import ParityError, UsageError
from probrt.runtime.images.png import encode_png
from probrt.runtime.predict.answer import Prediction
from probrt.runtime.predict.predictor import load_predictor
from probrt.runtime.serving.triton_decode import decode_rows

pytestmark = pytest.mark.parametrize("case", ["digits"], indirect=True)
# 24 draws in another order of sums, in float32 where `predict` adds up in float64.
TOLERANCE = 1e-5
PYTRITON = ("nvidia-pytriton==0.7.0", "numpy==1.26.4", "onnxruntime==1.32.0")


@pytest.fixture(scope="module")
def bank(bundle: ExportedCase, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The case with three chunks of draws."""
    model = bundle.bundle.path.parents[2] / "model"
    request = ExportRequest(draws=24, formats=("onnx",), variants=("draws",), select=False)
    return export(model, tmp_path_factory.mktemp("artifacts"), request).bundle


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 16, 16, 1)).astype(np.float32)


def flatten(prediction: Prediction) -> dict[str, np.ndarray]:
    """Returns a prediction's outputs by name."""
    heads = prediction.heads.items()
    outputs = {f"{head}.{name}": values for head, answer in heads for name, values in answer.quantities.items()}
    assert prediction.novelty is not None
    return outputs | {"novelty.score": prediction.novelty.score, "novelty.p_value": prediction.novelty.p_value}


def close(answer: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """Checks that an answer is right, its numbers per row as [batch, 1]; returns the largest difference."""
    assert answer.keys() == expected.keys()
    for name, values in expected.items():
        assert answer[name].shape == (values.shape if values.ndim > 1 else (*values.shape, 1)), name
        np.testing.assert_allclose(answer[name].reshape(values.shape), values, atol=TOLERANCE, err_msg=name)
    return max(float(np.abs(answer[name].reshape(values.shape) - values).max()) for name, values in expected.items())


def test_the_files_of_a_repository(bank: Bundle, tmp_path: Path) -> None:
    """config.pbtxt states the inputs and outputs of the ONNX file beside it."""
    folder = triton.write_repository(bank, tmp_path / "triton")
    graph = onnx.load(folder / "1" / "model.onnx").graph
    text_of_config = (folder / "config.pbtxt").read_text()
    stated = dict(re.findall(r'name: "([a-z_.]+)" data_type: TYPE_FP32 dims: \[ ([-0-9, ]+) \]', text_of_config))
    for value in (*graph.input, *graph.output):
        sides = [side.dim_value or -1 for side in value.type.tensor_type.shape.dim]
        assert sides[0] == -1
        # A side of length 1 stands for none, which Triton cannot state.
        assert [int(side) for side in stated.pop(value.name).split(",")] == (sides[1:] or [1]), value.name
    assert not stated
    assert (folder / "digit.txt").read_text().split() == ["a", "b", "c"]
    assert 'name: "digit.mean" data_type: TYPE_FP32 dims: [ 3 ] label_filename: "digit.txt"' in text_of_config
    assert text_of_config.count("reshape { shape: [ ] }") == 5  # entropies of the pooled class head, and novelty
    encoded = {path.relative_to(tmp_path).as_posix() for path in (tmp_path / "triton-encoded").rglob("*.*")}
    assert encoded == {
        f"triton-encoded/digits-{name}"
        for name in ("decode/config.pbtxt", "decode/1/model.py", "encoded/config.pbtxt", "encoded/1/.keep")
    }
    with pytest.raises(UsageError, match="never overwritten"):
        triton.write_repository(bank, tmp_path / "triton")


def test_a_second_version_keeps_what_its_owner_added(bank: Bundle, tmp_path: Path) -> None:
    config = triton.write_repository(bank, tmp_path / "triton") / "config.pbtxt"
    config.write_text(config.read_text() + "instance_group [ { count: 2 } ]\n")
    before = config.read_text()
    triton.write_repository(renumber(bank, 2), tmp_path / "triton")
    assert config.read_text() == before
    assert (config.parent / "2" / "model.onnx").is_file()


def renumber(bundle: Bundle, version: int) -> Bundle:
    """Returns the bundle under another number."""
    model = msgspec.structs.replace(bundle.manifest.model, version=version)
    return Bundle(bundle.path, msgspec.structs.replace(bundle.manifest, model=model))


def test_refusals_leave_nothing(bank: Bundle, tmp_path: Path) -> None:
    repository = tmp_path / "triton"
    (repository / "digits").mkdir(parents=True)
    (repository / "digits" / "config.pbtxt").write_text('name: "digits"\nplatform: "tensorflow_savedmodel"\n')
    with pytest.raises(UsageError, match=r"config\.pbtxt: is of another model, it lacks the line 'input"):
        triton.write_repository(bank, repository)
    assert [path.name for path in tmp_path.rglob("*")] == ["triton", "digits", "config.pbtxt"]
    other = msgspec.structs.replace(bank.manifest, heads=bank.manifest.heads[:1])
    with pytest.raises(ParityError, match=r"draws-00\.onnx: its outputs are .*ink\.mean.*, the manifest's digit"):
        triton.write_repository(Bundle(bank.path, other), tmp_path / "other")
    assert not list((tmp_path / "other").rglob("*.*"))


def test_pictures_become_rows(bank: Bundle, images: np.ndarray) -> None:
    files = [encode_png(images[0].astype(np.uint8)), b"no picture", encode_png(images[1].astype(np.uint8))[:60]]
    rows = decode_rows(files, bank.manifest.input)
    np.testing.assert_array_equal(rows[0], images[0])
    assert np.isnan(rows[1:]).all()


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Returns the folder of a Triton server's packages and one of backends: Python's, and one for ONNX files.

    The wheel carries the Python backend alone. A backend of any name may be written in Python; this one runs ONNX
    Runtime under the name that `platform: "onnxruntime_onnx"` asks for.
    """
    packages = install_packages("triton-2.51", "--no-deps", *PYTRITON)
    folder, wheel = tmp_path_factory.mktemp("backends"), packages / "pytriton" / "tritonserver"
    shutil.copytree(wheel / "backends" / "python", folder / "python")
    stub = (
        wheel / "python_backend_stubs" / f"{sys.version_info[0]}.{sys.version_info[1]}" / "triton_python_backend_stub"
    )
    shutil.copy(stub, folder / "python")
    (folder / "onnxruntime").mkdir()
    (folder / "onnxruntime" / "model.py").write_text(f"import sys\nsys.path.insert(0, {str(packages)!r})\n{BACKEND}")
    return packages, folder


# Requests are run together, as the real backend does; dlpack and as_numpy must not be mixed.
BACKEND = """
from pathlib import Path
import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as backend


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        return config

    def initialize(self, args):
        folder = Path(args["model_repository"]) / args["model_version"]
        self.session = ort.InferenceSession(str(folder / "model.onnx"))
        self.names = [output.name for output in self.session.get_outputs()]

    def execute(self, requests):
        images = [backend.get_input_tensor_by_name(request, "images").as_numpy() for request in requests]
        outputs = self.session.run(self.names, {"images": np.concatenate(images)})
        ends = np.cumsum([len(rows) for rows in images])[:-1]
        parts = zip(*(np.split(values, ends) for values in outputs))
        return [
            backend.InferenceResponse([
                backend.Tensor(name, np.ascontiguousarray(values.reshape(len(values), *values.shape[1:] or (1,))))
                for name, values in zip(self.names, part)
            ])
            for part in parts
        ]
"""


@pytest.fixture
def triton_server(backends: tuple[Path, Path], bank: Bundle, tmp_path: Path) -> Iterator[tuple[Server, Path]]:
    """Serves both repositories of the bank, and looks for new versions every second."""
    packages, folder = backends
    repository = tmp_path / "triton"
    triton.write_repository(bank, repository)
    script = tmp_path / "triton-encoded" / "digits-decode" / "1" / "model.py"
    # Does what `pip install probrt` does in a server's image; the backend ignores PYTHONPATH.
    paths = [str(packages), str(link_package(tmp_path / "site")), sysconfig.get_path("purelib")]
    script.write_text(f"import sys\nsys.path[:0] = {paths!r}\n{script.read_text()}")
    port = find_free_port()
    command = [
        packages / "pytriton" / "tritonserver" / "bin" / "tritonserver",
        f"--model-repository={repository}",
        f"--model-repository={tmp_path / 'triton-encoded'}",
        f"--backend-directory={folder}",
        "--http-address=127.0.0.1",
        f"--http-port={port}",
        "--allow-grpc=false",
        "--allow-metrics=false",
        "--model-control-mode=poll",
        "--repository-poll-secs=1",
    ]
    libraries = [packages / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR")]
    env = os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries))}
    with serve(command, port, tmp_path / "triton.log", env) as server:
        server.wait_until("/v2/health/ready")
        yield server, repository


@pytest.mark.stress
def test_a_real_server(
    triton_server: tuple[Server, Path],
    bank: Bundle,
    images: np.ndarray,
    measured: Callable[[str, str], None],
) -> None:
    """Raw values and picture files, 8 clients at once, and a second version while a client asks."""
    server, repository = triton_server
    expected = flatten(load_predictor(bank, engine="onnxruntime")(images))

    def take(rows: slice) -> dict[str, np.ndarray]:
        return {name: values[rows] for name, values in expected.items()}

    stated = {output["name"]: output["shape"] for output in server.get("/v2/models/digits")["outputs"]}
    assert stated == {name: [-1, *(values.shape[1:] or (1,))] for name, values in expected.items()}
    differences = [close(server.infer("digits", "images", images[:rows]), take(slice(rows))) for rows in (1, 5, 64)]

    files = [encode_png(image.astype(np.uint8)) for image in images[:5]]
    differences.append(close(server.infer("digits-encoded", "image_bytes", files), take(slice(5))))
    answer = server.infer("digits-encoded", "image_bytes", [files[0], b"no picture", files[2]])
    close({name: values[[0, 2]] for name, values in answer.items()}, take(slice(0, 3, 2)))
    bad = images[:3].copy()
    bad[1, 0, 0, 0] = np.inf
    for nan in (answer, server.infer("digits", "images", bad)):
        assert all(np.isnan(values[1]).all() and np.isfinite(values[[0, 2]]).all() for values in nan.values())

    def ask(number: int) -> float:
        start, rows = number % 50, 1 + number % 14
        return close(server.infer("digits", "images", images[start : start + rows]), take(slice(start, start + rows)))

    with ThreadPoolExecutor(8) as threads:
        differences += threads.map(ask, range(400))
    statistics = server.get("/v2/models/digits/stats")["model_stats"][0]
    assert statistics["execution_count"] < statistics["inference_stats"]["success"]["count"]  # it has batched

    asked, failed = 0, 0
    with ThreadPoolExecutor(1) as threads:
        stop = threading.Event()

        def ask_on() -> None:
            nonlocal asked, failed
            while not stop.is_set():
                try:
                    ask(asked)
                except OSError:  # HTTPError among them
                    failed += 1
                asked += 1

        client = threads.submit(ask_on)
        try:
            triton.write_repository(renumber(bank, 2), repository)
            server.wait_until("/v2/models/digits/versions/2/ready")
            before = asked
            while asked < before + 50 and not client.done():
                time.sleep(0.1)
        finally:
            stop.set()
        client.result()
    assert not failed
    server.wait_until("/v2/models/digits/versions/1/ready")  # all versions are served
    measured(
        "Triton 2.51 with 24 draws: raw values and PNGs, 8 clients, a second version beside a client",
        f"equal to predict to {max(differences):.1g}; {statistics['inference_stats']['success']['count']} requests in "
        f"{statistics['execution_count']} executions; {failed} of {asked} requests failed at the change of version",
    )


def link_package(folder: Path) -> Path:
    """Makes a folder from which `probrt.runtime` can be imported, and returns it."""
    (folder / "probrt").mkdir(parents=True)
    (folder / "probrt" / "runtime").symlink_to(ROOT / "runtime")
    return folder
