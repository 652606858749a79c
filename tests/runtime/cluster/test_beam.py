"""The worker of `--ray` inside a pipeline of Apache Beam, on its local runner: as docs/scale.md shows it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from extra_packages import BEAM, environment, install

from probrt.runtime import cli
from probrt.runtime.bundle.bundle import Bundle

PAGE = Path(__file__).parents[3] / "docs" / "scale.md"


@pytest.mark.stress
def test_the_pipeline_of_the_page(
    bundle: Bundle, pictures: Path, tmp_path: Path, measured: Callable[[str, str], None]
) -> None:
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert code is not None
    text = code.group(1).replace("artifacts/digits", str(bundle.path)).replace('"imgs"', repr(str(pictures)))
    (tmp_path / "pipeline.py").write_text(text.replace("2048", "64").replace('engine="onnxruntime"', 'engine="litert"'))
    packages = install(*BEAM)
    variables = environment(packages)
    variables["PYTHONPATH"] = f"{packages}:{variables['PYTHONPATH']}"  # its protobuf, not the one that is here
    done = subprocess.run(
        [sys.executable, "pipeline.py"], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    words: list[object] = ["predict", pictures, "--bundle", bundle.path, "--engine", "litert", "--maps", "none"]
    words += ["--threads", 1, "--out", tmp_path / "one.parquet", "--quiet"]
    assert cli.call(list(map(str, words))) == 0
    many, one = (pq.read_table(tmp_path / name).replace_schema_metadata() for name in ("rows", "one.parquet"))
    assert many.equals(one)
    assert (tmp_path / "rows" / "_shards.json").is_file()
    measured(f"the worker in a pipeline of {BEAM[0]}, local runner", f"{many.num_rows} rows, equal to `predict`")
