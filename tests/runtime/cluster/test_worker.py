"""A worker without a cluster: its shards are the rows of `predict`, and finished ones are kept."""

from __future__ import annotations

import hashlib
import io
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from probrt.runtime import cli
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import NAME
from probrt.runtime.cluster.shards import Shard, cut_shards
from probrt.runtime.cluster.worker import Job, ShardWorker
from probrt.runtime.predict.choose import PredictRequest

pytestmark = pytest.mark.stress


@pytest.fixture
def job(bundle: Bundle) -> Job:
    return Job(
        cwd="/",
        bundle=bundle.path,
        manifest=hashlib.sha256((bundle.path / NAME).read_bytes()).hexdigest(),
        request=PredictRequest(engine="litert"),
        batch_size=4,
        threads=1,
        tolerance="",
        unknown=None,
        max_risk=None,
        coverage=None,
        conformal=None,
        maps="none",
        overlay=False,
        out="memory://rows",
        run="one",
        resume=False,
    )


def read_table(store: Any, file: str) -> pa.Table:
    return pq.read_table(io.BytesIO(store.cat_file(f"/rows/{file}")))


def list_shards(names: list[str]) -> list[Shard]:
    return list(cut_shards(iter(names), 8))


@pytest.mark.parametrize("tolerance", ["", "0.002"])
def test_shards_are_the_rows_of_predict(
    store: Any, job: Job, bundle: Bundle, pictures: Path, tmp_path: Path, tolerance: str
) -> None:
    names = sorted(map(str, pictures.rglob("*.png")))
    names.insert(5, str(pictures / "metadata.csv"))
    names.insert(11, str(pictures / "gone.png"))
    (tmp_path / "list.txt").write_text("\n".join(names))
    words: list[object] = ["predict", tmp_path / "list.txt", "--bundle", bundle.path, "--engine", "litert"]
    words += ["--maps", "none", "--threads", 1, "--batch-size", 4, "--out", tmp_path / "one.parquet"]
    words += ["--tolerance", tolerance] if tolerance else []
    assert cli.call(list(map(str, words))) == 1
    worker = ShardWorker(replace(job, tolerance=tolerance, batch_size=4), {})
    shards = list(cut_shards(iter(names), 16))
    records = [worker.predict(shard) for shard in shards]
    assert [record.errors for record in records] == [2, 0]
    table = pa.concat_tables([read_table(store, record.file) for record in records])
    assert table.replace_schema_metadata().equals(pq.read_table(tmp_path / "one.parquet").replace_schema_metadata())


def test_addresses_and_another_machine(
    store: Any, job: Job, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle's folder is not there: the worker writes the files that came with the job."""
    files = {path.relative_to(bundle.path).as_posix(): path for path in bundle.path.rglob("*") if path.is_file()}
    contents = {name: path.read_bytes() for name, path in files.items()}
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    elsewhere = ShardWorker(replace(job, bundle=tmp_path / "elsewhere" / "1"), contents)
    (shard,) = list_shards([f"memory://bucket/{index:02d}.png" for index in range(3)] + ["memory://bucket/no.png"])
    record = elsewhere.predict(shard)
    rows = read_table(store, record.file).to_pylist()
    assert [row["status"] for row in rows] == ["ok", "ok", "ok", "error"]
    (copy,) = tmp_path.iterdir()
    assert Bundle.open(copy).label == bundle.label
    assert rows[0]["file"] == "memory://bucket/00.png"
    assert rows[0]["sha256"] == hashlib.sha256(store.cat_file("/bucket/00.png")).hexdigest()


def test_finished_shards_are_kept(store: Any, job: Job) -> None:
    names = [f"memory://bucket/{index:02d}.png" for index in range(15)]
    shards = list_shards(names)
    first = [ShardWorker(job, {}).predict(shard) for shard in shards]
    before = {record.file: store.modified(f"/rows/{record.file}") for record in first}
    again = [ShardWorker(replace(job, resume=True), {}).predict(shard) for shard in shards]
    assert all(record.kept for record in again)
    assert [replace(record, kept=False) for record in again] == first
    assert {record.file: store.modified(f"/rows/{record.file}") for record in first} == before


@pytest.mark.parametrize("change", ["image", "names", "settings", "half", "none"])
def test_a_shard_that_differs_is_computed_again(store: Any, job: Job, change: str) -> None:
    names = [f"memory://bucket/{index:02d}.png" for index in range(8)]
    ShardWorker(job, {}).predict(list_shards(names)[0])
    data = store.cat_file("/rows/part-000000.parquet")
    if change == "image":
        store.pipe_file("/bucket/03.png", store.cat_file("/bucket/04.png"))
    elif change == "names":
        names[2] = "memory://bucket/12.png"
    elif change == "half":
        store.pipe_file("/rows/part-000000.parquet", data[: len(data) // 2])
    job = replace(job, resume=True, run="another" if change == "settings" else "one")
    record = ShardWorker(job, {}).predict(list_shards(names)[0])
    assert record.kept is (change == "none")
    assert read_table(store, record.file)["file"].to_pylist() == names
