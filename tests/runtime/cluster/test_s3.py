"""Images and rows in S3: fsspec's own driver, with a server of this machine in place of Amazon's."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from extra_packages import S3, environment, install
from stopping import PROGRAM

from probrt.runtime import cli
from probrt.runtime.bundle.bundle import Bundle

pytestmark = [pytest.mark.stress, pytest.mark.xdist_group("ray")]

LIST = """
import json, s3fs, sys
store = s3fs.S3FileSystem()
if sys.argv[1] == "put":
    store.mkdir("bucket")
    store.put(sys.argv[2], "bucket/images", recursive=True)
elif sys.argv[1] == "get":
    store.get("bucket/rows", sys.argv[2], recursive=True)
elif sys.argv[1] == "remove":
    store.rm(sys.argv[2])
print(json.dumps(store.ls("bucket")))
"""


@pytest.fixture
def s3() -> Iterator[dict[str, str]]:
    """The environment of a process that reaches the server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    variables = environment(install(*S3)) | keys | {"AWS_ENDPOINT_URL": url}
    server = subprocess.Popen(
        [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)],
        env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        begin = time.monotonic()
        while True:
            assert server.poll() is None, server.communicate()[1]
            assert time.monotonic() < begin + 90
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield variables
    finally:
        server.terminate()
        server.communicate(timeout=20)


def use_store(variables: dict[str, str], *words: object) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", LIST, *map(str, words)], env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    names: list[str] = json.loads(done.stdout.splitlines()[-1])
    return names


def test_images_and_rows_in_s3(
    s3: dict[str, str], bundle: Bundle, pictures: Path, tmp_path: Path, measured: Callable[[str, str], None]
) -> None:
    use_store(s3, "put", pictures)

    def predict(*words: object) -> tuple[int, str]:
        command = ["predict", "s3://bucket/images", "--bundle", bundle.path, "--engine", "litert", "--maps", "none"]
        command += ["--ray", "local", "--workers", 2, "--shard-size", 8, "--batch-size", 8, "--out", "s3://bucket/rows"]
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *map(str, (*command, *words))],
            env=s3, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        return done.returncode, done.stderr

    code, error = predict()
    assert code == 0, error
    assert "20 rows, 0 errors, 3 shards" in error
    use_store(s3, "get", tmp_path / "rows")
    files = sorted(path.name for path in (tmp_path / "rows").iterdir())
    assert files == ["_run.json", "_shards.json", *(f"part-{index:06d}.parquet" for index in range(3))]
    rows = pq.read_table(tmp_path / "rows")
    words: list[object] = ["predict", pictures, "--bundle", bundle.path, "--engine", "litert", "--maps", "none"]
    words += ["--threads", 1, "--batch-size", 8, "--out", tmp_path / "one.parquet", "--quiet"]
    assert cli.call(list(map(str, words))) == 0
    one = pq.read_table(tmp_path / "one.parquet")
    assert rows["file"].to_pylist() == [
        name.replace(str(pictures), "s3://bucket/images") for name in one["file"].to_pylist()
    ]
    same = [name for name in one.column_names if name != "file"]
    assert rows.select(same).replace_schema_metadata().equals(one.select(same).replace_schema_metadata())
    use_store(s3, "remove", "bucket/rows/part-000001.parquet")
    code, error = predict("--resume")
    assert code == 0, error
    assert "2 of an earlier run" in error
    code, error = predict()
    assert code == 2
    assert "holds a run" in error
    measured(f"images and rows in S3, by {S3[0]} and moto's server", "rows equal to those of local files; resumed")


def test_a_bucket_that_is_not_there(s3: dict[str, str], bundle: Bundle, tmp_path: Path) -> None:
    command = ["predict", "s3://nowhere/images", "--bundle", bundle.path, "--ray", "local", "--maps", "none"]
    for url, message in (("s3://nowhere/images", "no such file or folder"), ("s3://nowhere/*.png", "no images there")):
        command[1] = url
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *map(str, command), "--out", str(tmp_path / "rows")],
            env=s3, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
