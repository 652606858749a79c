"""Bills of materials: their structure, the page of licences, and a bundle that lists one."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from probrt.exporter.sbom import Package, list_installed, make_sbom, write_sbom
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import NAME
from probrt.runtime.bundle.manifest_file import encode

TOP = Path(__file__).parents[2]
GOLDEN = TOP / "tests" / "golden" / "format-1" / "bundle"


@pytest.fixture(scope="module")
def writer() -> Any:
    """docs/write_licences.py as a module."""
    spec = importlib.util.spec_from_file_location("write_licences", TOP / "docs" / "write_licences.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_sbom(content: bytes) -> list[str]:
    """Checks what the schema of CycloneDX 1.6 demands of the fields that we write; returns the packages' URLs."""
    bom = json.loads(content)
    assert (bom["bomFormat"], bom["specVersion"], bom["version"]) == ("CycloneDX", "1.6", 1)
    assert bom.keys() == {"bomFormat", "specVersion", "version", "metadata", "components", "dependencies"}
    root = bom["metadata"]["component"]
    references = [root["bom-ref"], *(component["bom-ref"] for component in bom["components"])]
    assert len(set(references)) == len(references)
    (dependency,) = bom["dependencies"]
    assert [dependency["ref"], *dependency["dependsOn"]] == references
    for component in bom["components"]:
        assert component["type"] == "library"
        assert re.fullmatch(r"pkg:pypi/[a-z0-9-]+@[^@/]+", component["purl"])
        (licence,) = component["licenses"]
        assert licence.keys() == {"expression"} or licence["license"].keys() == {"name"}
    return references[1:]


def test_the_page_of_licences_lists_the_lock(writer: Any) -> None:
    page = writer.PAGE.read_text(encoding="utf-8")
    packages = writer.list_pinned(writer.LOCK.read_text(encoding="utf-8"), page)
    assert writer.write_table(page, packages) == page, "docs/licences.md is out of date: python docs/write_licences.py"
    assert all(package.licence != "unknown" for package in packages)
    assert {"numpy", "tensorflow", "pytest"} <= {package.name for package in packages}


def test_a_bill_of_materials_is_complete_and_the_same_each_time() -> None:
    packages = list_installed("probrt", ("export",))
    content = make_sbom({"type": "machine-learning-model", "name": "digits"}, packages)
    names = [url.partition("@")[0].rpartition("/")[2] for url in check_sbom(content)]
    # Their own requirements are among them.
    assert {"probrt", "numpy", "tensorflow", "onnx", "h5py", "protobuf"} <= set(names)
    assert "pytest" not in names
    assert content == make_sbom({"type": "machine-learning-model", "name": "digits"}, reversed(packages))
    assert len(content) < 30_000
    bsd = make_sbom(
        {"type": "library", "name": "x"}, [Package("a", "1", "BSD"), Package("b", "2", "MIT OR Apache-2.0")]
    )
    assert b'"licenses":[{"license":{"name":"BSD"}}]' in bsd
    assert b'"licenses":[{"expression":"MIT OR Apache-2.0"}]' in bsd


@pytest.mark.slow
def test_a_bundle_lists_its_bill_of_materials(tmp_path: Path, called: Callable[..., Any]) -> None:
    """Its bytes are checked as those of any file; a bundle without one is as good as before."""
    assert Bundle.open(GOLDEN).manifest.documents == []
    folder = Path(shutil.copytree(GOLDEN, tmp_path / "bundle"))
    manifest = Bundle.open(folder).manifest
    record = write_sbom(folder, manifest.model.name, {"versions": {"numpy": "1.0", "other": 3, "none": "2"}})
    urls = check_sbom((folder / "sbom.cdx.json").read_bytes())
    assert "pkg:pypi/numpy@1.0" in urls  # what trained the model
    assert not any("other" in url or "none" in url for url in urls)
    unlisted = called("verify", folder, cwd=tmp_path)
    assert (unlisted.code, "not listed" in unlisted.err) == (2, True)
    (folder / NAME).write_bytes(encode(msgspec.structs.replace(manifest, documents=[record])))
    assert "sbom.cdx.json" in called("inspect", folder, cwd=tmp_path).out
    content = (folder / "sbom.cdx.json").read_bytes()
    (folder / "sbom.cdx.json").write_bytes(content.replace(b"numpy", b"nunpy"))
    altered = called("verify", folder, cwd=tmp_path)
    assert (altered.code, "was altered after export" in altered.err) == (2, True)
    (folder / "sbom.cdx.json").unlink()
    missing = called("verify", folder, cwd=tmp_path)
    assert (missing.code, "sbom.cdx.json: missing" in missing.err) == (2, True)
