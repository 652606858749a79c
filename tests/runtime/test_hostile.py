"""Careless or malicious input (lists, odd files, bundles) ends as one line or one row, and nothing hangs."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from probrt.runtime import cli
from probrt.runtime.bundle import manifest as m
from probrt.runtime.bundle import manifest_file
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.errors import BundleError


def predict(bundle: Bundle, out: Path, *words: object) -> int:
    fixed = ["predict", "--bundle", bundle.path, "--out", out, "--engine", "litert", "--maps", "none"]
    return cli.call([str(word) for word in (*fixed, *words)])


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("column", ["file", "file_name", "path", "image"])
def test_a_parquet_list_names_files_relative_to_itself(
    bundle: Bundle, pictures: Path, tmp_path: Path, column: str
) -> None:
    shutil.copy(pictures / "00.png", tmp_path)
    pq.write_table(pa.table({"n": [1, 2], column: ["00.png", str(pictures / "01.png")]}), tmp_path / "list.parquet")
    assert predict(bundle, tmp_path / "p.jsonl", tmp_path / "list.parquet", "--quiet") == 0
    assert [row["file"] for row in read_rows(tmp_path / "p.jsonl")] == [f"{tmp_path}/00.png", f"{pictures}/01.png"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.csv", b"name,label\na,b\n", "no column file, file_name, path, image; its columns: name, label"),
        ("l.csv", b"label,file\nx\n", "line 2 names no file in column file"),
        ("l.csv", b'file\n"' + b"a" * 200_000 + b'"\n', "not readable as CSV"),
        ("l.parquet", b"PAR1 no parquet at all PAR1", "not readable as Parquet"),
        ("l.txt", b"\n\n", "no images there"),
    ],
)
def test_unreadable_lists_are_refused_in_one_line(
    bundle: Bundle, tmp_path: Path, name: str, content: bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    assert predict(bundle, tmp_path / "p.jsonl", tmp_path / name, "--quiet") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    for columns, reason in (({"n": [1]}, "no column"), ({"file": ["", "a"]}, "a row names no file")):
        pq.write_table(pa.table(columns), tmp_path / "l.parquet")
        assert predict(bundle, tmp_path / "p.jsonl", tmp_path / "l.parquet", "--quiet") == 2
        assert reason in capsys.readouterr().err


def test_a_list_of_odd_files_is_answered_row_by_row(
    bundle: Bundle, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "a.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    (tmp_path / "folder.png").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.png"))
    np.save(tmp_path / "two.npy", np.zeros((12, 12, 2), np.float32))
    np.save(tmp_path / "odd.npy", np.array(["text"]))
    Image.new("RGB", (12, 12)).save(
        tmp_path / "pages.tif", save_all=True, append_images=[Image.new("RGB", (12, 12))] * 2
    )
    Image.new("L", (12, 12)).save(tmp_path / "turns.gif", save_all=True, append_images=[Image.new("L", (12, 12), 255)])
    expected = {
        "pipe.png": "not a plain file",
        "a.png": "cannot be read",
        "folder.png": "a folder",
        "socket.png": "not a plain file",
        "gone.png": "No such file",
        "/dev/zero": "not a plain file",
        "two.npy": "an array of shape [12, 12, 2]; the model takes [12, 12, 1]",
        "odd.npy": "the model takes numbers",
    }
    good = ["pages.tif", str(pictures / "00.png"), "turns.gif"]
    names = [name for pair in zip(expected, good, strict=False) for name in pair] + list(expected)[len(good) :]
    (tmp_path / "list.txt").write_text("\n".join(names) + "\n")
    assert predict(bundle, tmp_path / "p.jsonl", tmp_path / "list.txt") == 1
    rows = read_rows(tmp_path / "p.jsonl")
    assert [row["file"] for row in rows] == [os.path.join(tmp_path, name) for name in names]  # noqa: PTH118
    for name, row in zip(names, rows, strict=True):
        assert expected.get(name, "") in (row["error"] or "")
        assert row["status"] == ("error" if name in expected else "ok")
    log = capsys.readouterr().err
    assert log.count("2 files hold several frames or pages: the first was taken") == 1
    assert "shapes/1: litert on cpu, float32, draws, 8 draws" in log
    assert "11 rows, 8 errors" in log
    assert "most uncertain by shape.epistemic:" in log


def test_auto_explains_its_choice_in_one_line(
    bundle: Bundle, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, line in (
        ((), "litert on cpu, float32, draws, 8 draws (starts soonest, for few images)"),
        (
            ("--samples", 5),
            "tensorflow on cpu, float32, sampled, 5 draws (starts soonest, for few images; litert: its bank gives",
        ),
        (("--engine", "onnxruntime"), "onnxruntime on cpu, float32, draws, 8 draws (as asked)"),
        (
            ("--variant", "mean"),
            "litert on cpu, float32, mean, posterior mean, no epistemic uncertainty (starts soonest",
        ),
    ):
        fixed = ["predict", pictures, "--bundle", bundle.path, "--out", tmp_path / "p.jsonl", "--overwrite", *words]
        assert cli.call([str(word) for word in fixed]) == 0
        assert capsys.readouterr().err.splitlines()[0].startswith(f"probrt: shapes/1: {line}")


@pytest.mark.stress
def test_memory_does_not_grow_with_the_number_of_images(
    bundle: Bundle, pictures: Path, tmp_path: Path, measured: Callable[[str, str], None]
) -> None:
    # Not ru_maxrss: a process inherits the peak of the one that started it.
    script = (
        "import re, sys; from pathlib import Path; from probrt.runtime import cli; cli.call(sys.argv[1:]);"
        r"print(int(re.search(r'VmHWM:\s+(\d+)', Path('/proc/self/status').read_text())[1]) // 1024)"
    )
    peak = {}
    for count in (500, 10_000):
        (tmp_path / "list.txt").write_text(f"{pictures}/00.png\n" * count)
        words = ["predict", tmp_path / "list.txt", "--bundle", bundle.path, "--engine", "litert", "--quiet"]
        words += ["--out", tmp_path / f"{count}.jsonl", "--maps", "none"]
        result = subprocess.run(
            [sys.executable, "-c", script, *map(str, words)], capture_output=True, text=True, check=True
        )
        peak[count] = int(result.stdout)
        assert len((tmp_path / f"{count}.jsonl").read_bytes().splitlines()) == count
    measured("resident memory over 10,000 images", f"{peak[500]} MB after 500, {peak[10_000]} MB after all")
    # In MB; 10,000 rows are 5 MB of text, and the memory that the first batch leaves varies by a few MB.
    assert peak[10_000] < peak[500] + 12


@pytest.fixture
def bundle_copy(bundle: Bundle, tmp_path: Path) -> Path:
    shutil.copytree(bundle.path, tmp_path / "shapes" / "1")
    return tmp_path / "shapes" / "1"


def test_a_newer_bundle_says_which_version_reads_it(
    bundle: Bundle, bundle_copy: Path, tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = json.loads((bundle_copy / m.NAME).read_text()) | {"format": 2, "probrt": "9.4.0", "surprise": [1]}
    (bundle_copy / m.NAME).write_text(json.dumps(text))
    for command in (["predict", str(pictures)], ["inspect"], ["verify"]):
        where = ["--bundle", str(bundle_copy)] if command[0] == "predict" else [str(bundle_copy)]
        assert cli.call([*command, *where]) == 2
        error = capsys.readouterr().err
        assert "was written by probrt 9.4.0; this one reads format 1; install probrt 9.4.0 or newer" in error
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / m.NAME).write_bytes(b"{" * 100_000), "not a probrt manifest"),
        (lambda folder: (folder / m.NAME).write_bytes(b" " * (m.MAX_BYTES + 1)), "at most"),
        (lambda folder: (folder / m.NAME).write_bytes(b"\xff\xfe"), "not a probrt manifest"),
        (lambda folder: (folder / "more.txt").write_text("x"), "not listed"),
        (lambda folder: (folder / "link").symlink_to("/etc/hostname"), "plain files only"),
        (lambda folder: os.mkfifo(folder / "pipe"), "plain files only"),
        (lambda folder: (folder / m.NAME).unlink(), "no bundle here"),
    ],
    ids=["deep", "large", "bytes", "unlisted", "link", "pipe", "absent"],
)
def test_an_unsound_bundle_is_refused(bundle_copy: Path, harm: Callable[[Path], object], message: str) -> None:
    harm(bundle_copy)
    with pytest.raises(BundleError, match=message):
        Bundle.open(bundle_copy)


@pytest.mark.parametrize("path", ["../out.tflite", "/etc/passwd", "a/../../b", "C:\\x", "a\\b", "a//b", "", "a\nb"])
def test_a_manifest_that_points_out_of_its_folder_is_refused(bundle: Bundle, path: str) -> None:
    files = [msgspec.structs.replace(bundle.manifest.files[0], path=path)]
    data = msgspec.json.encode(msgspec.structs.replace(bundle.manifest, files=files))
    with pytest.raises(BundleError, match=r"is not a (relative|plain) path|cannot be printed"):
        manifest_file.decode(data, m.NAME)
