"""The docs as a site: links hold inside it, and mkdocs builds it without a warning."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
HOOKS = runpy.run_path(str(TOP / "docs" / "site_hooks.py"))


@pytest.mark.parametrize(
    ("folder", "text", "expected"),
    [
        (TOP, "[a](docs/train.md#data) ![b](docs/report.png)", "[a](train.md#data) ![b](report.png)"),
        (TOP, "[a](CHANGELOG.md), [b](examples/digits/config.toml)", "[a](CHANGELOG.md), b"),
        (TOP / "docs", "[a](../SECURITY.md) [b](../README.md#use)", "[a](SECURITY.md) [b](index.md#use)"),
        (TOP / "docs", "[a](gallery) [b](gallery/nuclei.png) [c](write_schemas.py)", "a [b](gallery/nuclei.png) c"),
        (TOP / "docs", "[a](https://example.org/x) [b](#here)", "[a](https://example.org/x) [b](#here)"),
    ],
)
def test_links_hold_inside_the_site(folder: Path, text: str, expected: str) -> None:
    assert HOOKS["rewrite_links"](text, folder) == expected


@pytest.mark.stress
def test_the_site_builds_without_a_warning(root: Path, tmp_path: Path, measured: Callable[[str, str], None]) -> None:
    """The packages come from the lock docs/site-requirements.txt, into a folder of their own."""
    packages = tmp_path / "packages"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    lock = ["--require-hashes", "-r", root / "docs" / "site-requirements.txt"]
    done = subprocess.run([*pip, *lock, "--target", packages], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    site = tmp_path / "site"
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", site, "-f", root / "mkdocs.yml"]
    environment = os.environ | {"PYTHONPATH": str(packages), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, capture_output=True, text=True, check=False, env=environment, cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {page.stem: page.read_text(encoding="utf-8") for page in site.glob("*.html")}
    assert {path.stem for path in (root / "docs").glob("*.md")} <= pages.keys()
    assert {"index", "CHANGELOG", "SECURITY", "CONTRIBUTING"} <= pages.keys()
    assert {path.name for path in (root / "docs" / "web").iterdir()} <= {path.name for path in (site / "web").iterdir()}
    if shutil.which("npm"):
        assert (site / "web" / "onnxruntime-web" / "ort-wasm-simd-threaded.wasm").stat().st_size > 10**7
    for name, page in pages.items():
        for target in re.findall(r'(?:href|src)="([^"#:?]+)"', page):
            # 404.html names its files from the root, because it stands for any page.
            assert (site / target.lstrip("/")).exists(), f"{name}.html: {target} does not exist"
        assert not re.findall(r'(?:src|href)="https?://[^"]*(?:font|cdn|unpkg)', page), f"{name}.html loads from afar"
    measured("the docs as a site, strict", f"{len(pages)} pages, no warning, no dead link")
