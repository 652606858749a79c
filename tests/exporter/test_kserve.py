"""The model folder for OpenVINO Model Server, and KServe's manifests against the schemas that KServe publishes."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from exported_cases import ExportedCase
from model_servers import install_packages

from probrt.exporter import openvino_models
from probrt.exporter.kserve import make_openvino_manifest, make_service_name, make_triton_manifest
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.errors import UsageError
from probrt.runtime.predict.predictor import load_predictor

# The same draws summed in another order, on another engine.
TOLERANCE = 1e-5


@pytest.mark.parametrize("case", ["digits"], indirect=True)
def test_a_folder_for_openvino_model_server(bundle: ExportedCase, tmp_path: Path) -> None:
    """OpenVINO itself loads the one file of a version: every output is [batch, ...], a bad row is NaN."""
    home = openvino_models.write_model(bundle.bundle, tmp_path)
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"digits/1/model.onnx", "digits.yaml"}
    openvino = importlib.import_module("openvino")
    core = openvino.Core()
    model = core.compile_model(core.read_model(home / "1" / "model.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    images = bundle.images.copy()
    expected = load_predictor(bundle.bundle, engine="onnxruntime")(images)
    images[1, 0, 0, 0] = np.nan
    answer = {output.any_name: values for output, values in model({"images": images}).items()}
    good = [0, *range(2, len(images))]
    for head, values in expected.heads.items():
        for quantity, want in values.quantities.items():
            got = answer.pop(f"{head}.{quantity}")
            assert got.shape == want.shape
            assert np.isnan(got[1]).all()
            np.testing.assert_allclose(got[good], want[good], atol=TOLERANCE, err_msg=f"{head}.{quantity}")
    assert {name: values.shape for name, values in answer.items()} == {
        name: (len(images),) for name in ("novelty.score", "novelty.p_value")
    }

    (tmp_path / "digits.yaml").write_text("mine")
    record = msgspec.structs.replace(bundle.bundle.manifest.model, version=2)
    second = Bundle(bundle.bundle.path, msgspec.structs.replace(bundle.bundle.manifest, model=record))
    openvino_models.write_model(second, tmp_path)
    assert (home / "2" / "model.onnx").is_file()
    assert (tmp_path / "digits.yaml").read_text() == "mine"
    with pytest.raises(UsageError, match="never overwritten"):
        openvino_models.write_model(second, tmp_path)
    (tmp_path / "other" / "digits" / "7").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"7: is of another model, it has no model\.onnx"):
        openvino_models.write_model(bundle.bundle, tmp_path / "other")


@pytest.mark.parametrize(
    ("model", "service"),
    [("digits", "digits"), ("My_Model.v2", "my-model-v2"), ("7up", "model-7up"), ("a" * 80, "a" * 63), ("_", "model")],
)
def test_names_of_services(model: str, service: str) -> None:
    name = make_service_name(model)
    assert name == service
    assert re.fullmatch("[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name)  # RFC 1035, as Kubernetes wants it


# Walks a manifest beside the classes that KServe and Kubernetes generate from their schemas; they know each field's
# name and type. The packages themselves are not imported: they start the libraries of servers.
CHECK = """
import sys, types, re, yaml
for name in ("kubernetes", "kserve"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [f"{sys.argv[1]}/{name}"]
import kubernetes.client
import kserve.models as models

def find(name):
    return getattr(models, name, None) or getattr(kubernetes.client, name, None)

def check(value, type_name, where):
    if match := re.fullmatch(r"[Ll]ist\\[(.*)\\]", type_name):
        assert isinstance(value, list), where
        for place, item in enumerate(value):
            check(item, match[1], f"{where}[{place}]")
    elif match := re.fullmatch(r"[Dd]ict[\\[(](\\w+), (.*)[\\])]", type_name):
        for key, item in value.items():
            check(item, match[2], f"{where}.{key}")
    elif type_name in ("str", "bool", "int", "float"):
        assert type(value).__name__ == type_name, (where, value, type_name)
    elif type_name != "object":
        kind = find(type_name)
        assert kind, f"{where}: no schema {type_name}"
        fields = {key: attribute for attribute, key in kind.attribute_map.items()}
        for key, item in value.items():
            assert key in fields, f"{where}.{key}: not in {type_name}, which has {sorted(fields)}"
            check(item, kind.openapi_types[fields[key]], f"{where}.{key}")
        kind(**{fields[key]: item for key, item in value.items()})  # refuses one without a required field

KINDS = {"InferenceService": "V1beta1InferenceService", "ServingRuntime": "V1alpha1ServingRuntime"}
for document in yaml.safe_load_all(sys.stdin):
    check(document, KINDS[document["kind"]], document["kind"])
    print(document["apiVersion"], document["kind"], document["metadata"]["name"])
"""


@pytest.mark.stress
def test_manifests_follow_the_published_schemas(measured: Callable[[str, str], None]) -> None:
    packages = install_packages("kserve-0.21.0", "--no-deps", "kserve==0.21.0", "kubernetes==37.0.2", "pyyaml==6.0.4")

    def check(text: str) -> subprocess.CompletedProcess[str]:
        code = f"import sys; sys.path.insert(0, {str(packages)!r})\n{CHECK}"
        command = [sys.executable, "-c", code, str(packages)]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False)

    manifests = [make_triton_manifest("digits"), make_openvino_manifest("digits")]
    results = [check(manifest) for manifest in manifests]
    assert [result.returncode for result in results] == [0, 0], results
    names = [line for result in results for line in result.stdout.splitlines()]
    assert names == [
        "serving.kserve.io/v1beta1 InferenceService digits",
        "serving.kserve.io/v1alpha1 ServingRuntime openvino-model-server",
        "serving.kserve.io/v1beta1 InferenceService digits",
    ]
    wrong = [
        ("storageUri", "storageURI", "storageURI: not in V1beta1ModelSpec"),
        ("multiModel: false", "multiModel: 7", "multiModel"),
        ("        - containerPort: 8080\n          protocol: TCP", "        - protocol: TCP", "containerPort"),
        ("name: kserve-container", "nom: kserve-container", "containers[0].nom: not in V1Container"),
    ]
    for old, new, message in wrong:
        result = check(manifests[1].replace(old, new))
        assert result.returncode == 1
        assert message in result.stderr
    measured(
        "KServe's manifests against the schemas of kserve 0.21 and kubernetes 37",
        f"{len(names)} documents follow them; {len(wrong)} broken ones do not",
    )
