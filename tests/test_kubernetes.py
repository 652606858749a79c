"""The manifests of docs/kubernetes: against the published schemas of Kubernetes, and their scripts for real."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from extra_packages import KUBERNETES, RAY, environment, install
from PIL import Image
from shapes import GOLDEN

# With those of Ray on one worker: `--ray auto` finds any Ray of the machine.
pytestmark = [pytest.mark.stress, pytest.mark.xdist_group("ray")]
FOLDER = Path(__file__).parent.parent / "docs" / "kubernetes"
VERSIONS = ("1.33", "1.35", "1.37")
FILES = sorted(FOLDER.glob("*.yaml"))


@pytest.fixture
def kubernetes(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package with the schemas."""
    monkeypatch.syspath_prepend(str(install(*KUBERNETES)))
    return importlib.import_module("kubernetes_validate")


def read_manifests(path: Path) -> list[dict[str, Any]]:
    import yaml

    return list(yaml.safe_load_all(path.read_text()))


def find_containers(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    template = manifest["spec"].get("template", {}) if "spec" in manifest else {}
    return template.get("spec", {}).get("containers", []) if isinstance(template, dict) else []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
@pytest.mark.parametrize("version", VERSIONS)
def test_the_published_schemas_hold(kubernetes: Any, path: Path, version: str) -> None:
    for manifest in read_manifests(path):
        assert kubernetes.validate(manifest, version, strict=True) == version


def test_a_wrong_manifest_is_found(kubernetes: Any) -> None:
    (job,) = (manifest for manifest in read_manifests(FOLDER / "train.yaml") if manifest["kind"] == "Job")
    job["spec"]["template"]["spec"]["containers"][0]["resource"] = {}
    with pytest.raises(kubernetes.ValidationError):
        kubernetes.validate(job, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_names_agree(kubernetes: Any, path: Path) -> None:
    """What a schema does not see: selectors, ports, claims and targets name something that is there."""
    manifests = read_manifests(path)
    (claim,) = (manifest["metadata"]["name"] for manifest in read_manifests(FOLDER / "volume.yaml"))
    by_kind = {manifest["kind"]: manifest for manifest in manifests}
    for manifest in manifests:
        for container in find_containers(manifest):
            pod = manifest["spec"]["template"]["spec"]
            ports = {port["name"] for port in container["ports"]}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                if probe in container:
                    check = container[probe].get("httpGet") or container[probe]["tcpSocket"]
                    assert check["port"] in ports
            volumes = {volume["name"]: volume for volume in pod["volumes"]}
            assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
            claims = [volume["persistentVolumeClaim"]["claimName"] for volume in volumes.values()
                      if "persistentVolumeClaim" in volume]  # fmt: skip
            assert claims == [claim]
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
    if "Deployment" in by_kind:
        deployment = by_kind["Deployment"]
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"] == labels
        assert by_kind["Service"]["spec"]["selector"] == labels
        assert by_kind["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
        target = by_kind["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
        assert "cpu" in find_containers(deployment)[0]["resources"]["requests"]  # a utilization is a share of it
    if "Job" in by_kind:
        job, service = by_kind["Job"], by_kind["Service"]
        assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
        assert job["spec"]["template"]["spec"]["subdomain"] == service["metadata"]["name"]


def test_every_pod_of_training_gets_its_tf_config(kubernetes: Any, tmp_path: Path) -> None:
    (job,) = (manifest for manifest in read_manifests(FOLDER / "train.yaml") if manifest["kind"] == "Job")
    (container,) = find_containers(job)
    count = job["spec"]["completions"]
    variables = {item["name"]: item["value"] for item in container["env"]}
    assert int(variables["WORKERS"]) == count == job["spec"]["parallelism"]
    (tmp_path / "probrt").write_text('#!/bin/sh\nprintf "%s\\n" "$TF_CONFIG" "$*"\n')
    (tmp_path / "probrt").chmod(0o755)

    def run(index: int) -> list[str]:
        given = {**variables, "JOB_COMPLETION_INDEX": str(index), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        done = subprocess.run(
            [*container["command"], *container["args"]],
            env=given,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines()

    workers = [f"train-{index}.train:2222" for index in range(count)]
    for index in range(count):
        config, words = run(index)
        assert json.loads(config) == {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        assert words == "train data/config.toml --out model --overwrite"
    (tmp_path / "model" / "checkpoints").mkdir(parents=True)
    (tmp_path / "model" / "checkpoints" / "00000010.npz").touch()
    assert run(1)[1] == "train data/config.toml --out model --resume"
    (tmp_path / "model" / "checkpoints" / "00000010.npz").unlink()
    (tmp_path / "model" / "model.json").touch()
    assert run(1) == []


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """A folder for Ray's files, with a short name for its sockets; ends what still runs from it."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    yield folder
    for process in psutil.process_iter():
        try:
            if any(str(folder) in word for word in process.cmdline()) and process.pid != os.getpid():
                process.kill()
        except psutil.Error:
            continue
    shutil.rmtree(folder, ignore_errors=True)


def test_the_pods_of_ray_form_a_cluster(
    kubernetes: Any, ray_folder: Path, tmp_path: Path, measured: Callable[[str, str], None]
) -> None:
    """The scripts of two pods on this machine: a Ray of two nodes, which `--ray auto` finds."""
    (job,) = (manifest for manifest in read_manifests(FOLDER / "predict-ray.yaml") if manifest["kind"] == "Job")
    (container,) = find_containers(job)
    shutil.copytree(GOLDEN / "shapes" / "1", tmp_path / "artifacts" / "digits" / "1")
    rng = np.random.default_rng(0)
    for index in range(40):
        Image.fromarray(rng.integers(0, 256, (12, 12), dtype=np.uint8)).save(tmp_path / f"{index:02d}.png")
    (tmp_path / "images.txt").write_text("".join(f"{index:02d}.png\n" for index in range(41)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = (
        container["args"][0].replace("6379", str(port)).replace("--shard-size 8192", "--shard-size 8 --batch-size 8")
    )
    packages = environment(install(*RAY))
    given = {item["name"]: item["value"] for item in container["env"] if "value" in item}
    (ray_folder / "bin").mkdir()
    (ray_folder / "bin" / "ray").write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'from ray.scripts.scripts import main; main()' \"$@\"\n"
    )
    (ray_folder / "bin" / "ray").chmod(0o755)
    own = {
        "PROCESSORS": "1",
        "HEAD": "127.0.0.1",
        "RAY_AUTH_TOKEN": "0123456789abcdef" * 3,
        "RAY_TMPDIR": str(ray_folder),
    }
    path = os.pathsep.join([str(ray_folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])

    def start(index: int) -> subprocess.Popen[str]:
        variables = packages | given | own | {"JOB_COMPLETION_INDEX": str(index), "PATH": path}
        return subprocess.Popen(
            [*container["command"], script], env=variables, cwd=tmp_path, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    begin = time.monotonic()
    worker = start(1)
    head = start(0)
    try:
        output, _ = head.communicate(timeout=240)
    finally:
        os.killpg(worker.pid, 9)
        worker.communicate()
    assert head.returncode == 0, output
    assert "41 rows, 1 errors, 6 shards" in output, output
    table = pq.read_table(tmp_path / "rows")
    assert all((tmp_path / name).is_file() for name in table["ink.mean"].drop_null().to_pylist())
    assert table["file"].to_pylist() == [f"{index:02d}.png" for index in range(41)]
    measured(f"the pods of predict-ray.yaml, with {RAY[0]}", f"41 rows in {time.monotonic() - begin:.0f} s")
