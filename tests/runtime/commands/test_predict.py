"""`probrt predict` on real files: rows, formats, order, errors, continued runs, tolerance."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from probrt.runtime import cli
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.images.decode import read_image
from probrt.runtime.predict.predictor import load_predictor
from probrt.runtime.rows.writers import show_bytes


def predict(bundle: Bundle, out: Path, *words: object) -> int:
    fixed = ["predict", "--bundle", str(bundle.path), "--out", str(out), "--engine", "litert", "--quiet"]
    return cli.call([*fixed, *map(str, words)])


def read_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_say_what_the_model_says(bundle: Bundle, pictures: Path, tmp_path: Path) -> None:
    assert predict(bundle, tmp_path / "p.jsonl", pictures) == 0
    written = read_rows(tmp_path / "p.jsonl")
    assert [Path(row["file"]).name for row in written] == [f"{i:02d}.png" for i in range(20)]
    images = np.stack([read_image(row["file"], bundle.manifest.input) for row in written])
    prediction = load_predictor(bundle, engine="litert")(images)
    for i, row in enumerate(written):
        assert list(row) == [
            "file",
            "sha256",
            "status",
            "error",
            "draws",
            "effective_draws",
            "engine",
            "precision",
            "bundle",
            "heads",
        ]
        assert (row["status"], row["error"], row["draws"]) == ("ok", None, 8)
        assert (row["engine"], row["precision"], row["bundle"]) == ("litert", "float32", "shapes/1")
        shape, slant, ink = row["heads"]["shape"], row["heads"]["slant"], row["heads"]["ink"]
        np.testing.assert_allclose(shape["mean"], prediction["shape"].mean[i], rtol=1e-6)
        assert shape["label"] == bundle.manifest.head("shape").labels[int(np.argmax(shape["mean"]))]
        assert shape["probability"] == max(shape["mean"])
        assert shape["label"] in shape["set"]
        assert slant["epistemic"] == pytest.approx(float(prediction["slant"].epistemic[i, 0]), rel=1e-6)
        half = 1.6448536 * slant["total"] ** 0.5
        assert slant["interval"] == pytest.approx([slant["mean"] - half, slant["mean"] + half], abs=1e-5)
        mask = np.asarray(Image.open(ink["mean"]))
        np.testing.assert_array_equal(mask, np.rint(prediction["ink"].mean[i, ..., 0] * 255))
        scaled = np.asarray(Image.open(ink["total"])) / 255 * np.log(2)
        np.testing.assert_allclose(scaled, prediction["ink"].total[i, ..., 0], atol=0.5 / 255)


def test_odd_files_get_a_row_and_a_reason(bundle: Bundle, mixed: Path, tmp_path: Path) -> None:
    assert predict(bundle, tmp_path / "p.jsonl", mixed) == 1
    by_name = {os.path.basename(row["file"]): row for row in read_rows(tmp_path / "p.jsonl")}  # noqa: PTH119
    assert len(by_name) == 25
    errors = {name: row["error"] for name, row in by_name.items() if row["status"] == "error"}
    assert errors.keys() == {"03b.png", "05b.png", "07b.png"}
    assert "not an image" in errors["03b.png"]
    assert errors["05b.png"] == "not a plain file"
    assert by_name["a\nb.png"]["sha256"] == by_name["00.png"]["sha256"]
    name = next(name for name in by_name if name.endswith("\udcff.png"))
    assert (Path(os.fsdecode(mixed)) / name).exists()


def test_isolated_decoders_write_the_same_rows(bundle: Bundle, mixed: Path, tmp_path: Path) -> None:
    assert predict(bundle, tmp_path / "threads.jsonl", "--maps", "none", mixed) == 1
    assert predict(bundle, tmp_path / "processes.jsonl", "--maps", "none", "--isolate", mixed) == 1
    assert (tmp_path / "threads.jsonl").read_bytes() == (tmp_path / "processes.jsonl").read_bytes()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_flat_formats_hold_the_same(bundle: Bundle, mixed: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"p.{suffix}"
    assert predict(bundle, out, mixed) == 1
    assert predict(bundle, tmp_path / "q.jsonl", mixed) == 1
    if suffix == "csv":
        with out.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            flat = list(csv.DictReader(stream))
    else:
        flat = pytest.importorskip("pyarrow.parquet").read_table(out).to_pylist()
    for a, b in zip(flat, read_rows(tmp_path / "q.jsonl"), strict=True):
        assert a["status"] == b["status"]
        if suffix == "csv":
            assert a["file"] == b["file"]
        if b["status"] == "ok":
            assert float(a["slant.mean"]) == b["heads"]["slant"]["mean"]
            means = json.loads(a["shape.mean"]) if suffix == "csv" else a["shape.mean"]
            assert means == b["heads"]["shape"]["mean"]
            assert a["ink.total"].endswith(".ink.total.png")


def test_tolerance_adds_draws_where_they_are_needed(bundle: Bundle, pictures: Path, tmp_path: Path) -> None:
    assert predict(bundle, tmp_path / "all.jsonl", pictures) == 0
    fixed = read_rows(tmp_path / "all.jsonl")
    assert predict(bundle, tmp_path / "four.jsonl", pictures, "--samples", 4) == 0
    four = read_rows(tmp_path / "four.jsonl")
    errors = sorted((row["heads"]["slant"]["epistemic"] / 3) ** 0.5 for row in four)
    limit = (errors[9] + errors[10]) / 2
    words = ("--tolerance", f"slant={limit:.9f}", "--batch-size", 3)
    assert predict(bundle, tmp_path / "some.jsonl", pictures, *words) == 0
    some = read_rows(tmp_path / "some.jsonl")
    assert [row["file"] for row in some] == [row["file"] for row in fixed]
    assert sorted(row["draws"] for row in some) == [4] * 10 + [8] * 10
    for row, short, long in zip(some, four, fixed, strict=True):
        expected = short if row["draws"] == 4 else long
        for head in ("shape", "slant"):
            for name in ("mean", "epistemic"):
                assert row["heads"][head][name] == pytest.approx(expected["heads"][head][name], abs=1e-6)


def test_lists_globs_and_standard_input(
    bundle: Bundle, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pictures / "list.csv").write_text("shape,file_name\nflat,00.png\ntall,more/16.png\n")
    (pictures / "list.txt").write_text("00.png\nmore/16.png\n")
    (pictures / "sheet.csv").write_text("\ufeffshape;file_name\nflat;00.png\ntall;more/16.png\n")  # as Excel saves it
    (pictures / "sheet.txt").write_text("\ufeff00.png\r\nmore/16.png\r\n")
    names = f"{pictures}/00.png\n{pictures}/more/16.png\n"
    with (tmp_path / "in").open("w+") as stream:
        stream.write(names)
        stream.seek(0)
        monkeypatch.setattr(sys, "stdin", stream)
        assert predict(bundle, tmp_path / "stdin.jsonl", "-") == 0
    assert predict(bundle, tmp_path / "csv.jsonl", pictures / "list.csv") == 0
    assert predict(bundle, tmp_path / "txt.jsonl", pictures / "list.txt") == 0
    assert predict(bundle, tmp_path / "glob.jsonl", f"{pictures}/0[0].png", f"{pictures}/**/16.png") == 0
    assert predict(bundle, tmp_path / "sheet_csv.jsonl", pictures / "sheet.csv") == 0
    assert predict(bundle, tmp_path / "sheet_txt.jsonl", pictures / "sheet.txt") == 0
    for name in ("stdin", "csv", "txt", "glob", "sheet_csv", "sheet_txt"):
        assert [row["file"] for row in read_rows(tmp_path / f"{name}.jsonl")] == names.split()
    for name in ("list.csv", "list.txt", "sheet.csv", "sheet.txt"):
        (pictures / name).unlink()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing-here"], "no such file or folder"),
        (["empty"], "no images there"),
        (["imgs", "--samples", "0"], "at least 1"),
        (["imgs", "--samples", "x"], "--samples"),
        (["imgs", "--colour", "red"], "--colour"),
        (["imgs", "--maps", "gif"], "choose one of auto, png"),
        (["imgs", "--tolerance", "-1"], "a positive number"),
        (["imgs", "--out", "p.xlsx", "--overwrite"], "ends in .jsonl, .csv or .parquet"),
        (["imgs", "--bundle", "empty"], "no bundle here"),
        (["imgs", "--bundle", "gone"], "no such bundle folder"),
        ([], "Missing argument"),
    ],
)
def test_refusals_are_one_line_and_exit_2(
    bundle: Bundle, pictures: Path, tmp_path: Path, words: list[str], message: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "empty").mkdir()
    (tmp_path / "imgs").symlink_to(pictures)
    (tmp_path / "artifacts").symlink_to(bundle.path.parent.parent)
    monkeypatch.chdir(tmp_path)
    assert cli.call(["predict", *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("probrt: ")
    assert message in lines[-1]
    assert "Traceback" not in "".join(lines)


def test_without_artifacts_it_says_how_to_get_one(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.call(["predict", str(pictures)]) == 2
    assert "probrt export" in capsys.readouterr().err


def test_a_device_is_no_output(
    bundle: Bundle, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p.jsonl"
    out.symlink_to("/dev/full")
    assert predict(bundle, out, pictures, "--overwrite") == 2
    assert "not a plain file" in capsys.readouterr().err


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_stop_with_their_codes_and_whole_rows(
    bundle: Bundle, pictures: Path, tmp_path: Path, signum: signal.Signals, code: int
) -> None:
    out = tmp_path / "p.jsonl"
    words = ["predict", "-", "--bundle", str(bundle.path), "--out", str(out), "--engine", "litert", "--batch-size", "1"]
    # A shell starts background jobs with SIGINT ignored, and a child inherits that: here it must not.
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", program + "from probrt.runtime.cli import main; main()", *words],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stderr is not None
    for _ in range(600):
        process.stdin.write(f"{pictures / '00.png'}\n")
    process.stdin.flush()
    assert "litert on cpu" in process.stderr.readline()
    journal = tmp_path / "p.jsonl.unfinished" / "rows.jsonl"
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 2):
        assert process.poll() is None
    process.send_signal(signum)
    _, err = process.communicate()
    assert process.returncode == code, err
    assert "continue with --resume" in err
    assert "Traceback" not in err
    assert all(row["status"] == "ok" for row in read_rows(journal))
    assert not out.exists()


def test_names_on_standard_input_may_be_no_utf8(bundle: Bundle, mixed: Path, tmp_path: Path) -> None:
    names = os.fsencode(mixed) + b"/\xff.png\n" + os.fsencode(mixed) + b"/gone.png\n"
    words = ["predict", "-", "--bundle", bundle.path, "--out", "-", "--engine", "litert", "--quiet", "--maps", "none"]
    process = subprocess.run(
        [sys.executable, "-c", "from probrt.runtime.cli import main; main()", *words],
        input=names, capture_output=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert process.returncode == 1, process.stderr
    good, gone = [json.loads(line) for line in process.stdout.splitlines()]
    assert os.fsencode(good["file"]).endswith(b"/\xff.png")
    assert good["heads"].keys() == {"shape", "slant"}
    assert "No such file" in gone["error"]


def test_folders_nested_deeper_than_the_stack(bundle: Bundle, pictures: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "d"]
    for _ in range(1200):
        folders.append(folders[-1] / "d")
    try:
        for folder in folders:
            folder.mkdir()
        shutil.copy(pictures / "00.png", folders[-1])
        assert predict(bundle, tmp_path / "p.jsonl", tmp_path / "d") == 0
        assert read_rows(tmp_path / "p.jsonl")[0]["file"] == str(folders[-1] / "00.png")
    finally:  # one by one: what clears temporary folders recurses
        (folders[-1] / "00.png").unlink(missing_ok=True)
        for folder in reversed(folders):
            folder.rmdir()


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "tensorflow"])
def test_tolerance_on_every_engine(bundle: Bundle, pictures: Path, tmp_path: Path, engine: str) -> None:
    for tolerance, draws in (("1000", 4 if engine != "tensorflow" else 8), ("1e-9", 8)):
        words = ("--engine", engine, "--tolerance", tolerance, "--overwrite", "--maps", "none")
        assert predict(bundle, tmp_path / "p.jsonl", pictures, *words) == 0
        assert {row["draws"] for row in read_rows(tmp_path / "p.jsonl")} == {draws}


def test_batches_and_threads_change_no_answer(bundle: Bundle, pictures: Path, tmp_path: Path) -> None:
    for name, words in (
        ("a", ()),
        ("b", ("--batch-size", 1, "--threads", 1)),
        ("c", ("--batch-size", 7, "--threads", 4)),
    ):
        assert predict(bundle, tmp_path / f"{name}.jsonl", pictures, "--maps", "none", *words) == 0
    first = read_rows(tmp_path / "a.jsonl")
    for name in ("b", "c"):
        for x, y in zip(first, read_rows(tmp_path / f"{name}.jsonl"), strict=True):
            assert x["sha256"] == y["sha256"]
            assert x["heads"]["shape"]["mean"] == pytest.approx(y["heads"]["shape"]["mean"], abs=1e-5)
            assert x["heads"]["slant"]["total"] == pytest.approx(y["heads"]["slant"]["total"], abs=1e-5)


def test_answers_that_are_not_finite_are_error_rows(
    bundle: Bundle, tmp_path: Path, rewrite: Callable[..., Bundle]
) -> None:
    folder = tmp_path / "free" / "1"
    shutil.copytree(bundle.path, folder)
    free = rewrite(folder, input=msgspec.structs.replace(bundle.manifest.input, range=None))
    for name, value in (("a", 1.0), ("b", 1e38), ("c", 2.0)):
        np.save(tmp_path / f"{name}.npy", np.full((12, 12, 1), value, np.float32))
    for suffix in ("jsonl", "csv", "parquet"):
        words = [tmp_path / f"{name}.npy" for name in "abc"]
        assert predict(free, tmp_path / f"p.{suffix}", *words, "--maps", "npy") == 1
    good, bad, other = read_rows(tmp_path / "p.jsonl")
    assert (good["status"], bad["status"], other["status"]) == ("ok", "error", "ok")
    assert "is not finite for this image" in bad["error"]
    assert bad["heads"] is None
    assert bad["sha256"]


@pytest.mark.skipif(not Path("/proc/kmsg").exists(), reason="no /proc/kmsg here")
def test_files_that_give_no_data_are_error_rows(bundle: Bundle, pictures: Path, tmp_path: Path) -> None:
    words = ["/proc/kmsg", "/proc/self/mem", pictures / "00.png", "/proc/self/clear_refs"]
    assert predict(bundle, tmp_path / "p.jsonl", *words) == 1
    rows = read_rows(tmp_path / "p.jsonl")
    assert [row["status"] for row in rows] == ["error", "error", "ok", "error"]
    assert all(row["error"] for row in rows if row["status"] == "error")


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_names_with_every_odd_character_come_back(
    bundle: Bundle, pictures: Path, tmp_path: Path, suffix: str,
    stop_after_writes: Callable[[int], AbstractContextManager[None]],
) -> None:  # fmt: skip
    folder = tmp_path / "odd"
    folder.mkdir()
    names = [
        b"a\rb",
        b"a\r\nb",
        b"\r",
        b"a,b",
        b'a"b',
        b'"',
        b"a\tb",
        b"a\xff\xfeb",
        "a\u2028b".encode(),
        b"a\\xff",
        b" a ",
    ]
    for name in names:
        shutil.copy(pictures / "00.png", os.fsencode(folder) + b"/" + name + b".png")
    out = tmp_path / f"p.{suffix}"
    with stop_after_writes(2):
        assert predict(bundle, out, folder, "--maps", "none", "--batch-size", 3) == 130
    assert predict(bundle, out, folder, "--maps", "none", "--batch-size", 3, "--resume") == 0
    assert predict(bundle, out, folder, "--maps", "none", "--batch-size", 3, "--resume") == 0
    expected = sorted(os.fsdecode(os.fsencode(folder) + b"/" + name + b".png") for name in names)
    if suffix == "parquet":
        assert sorted(pd.read_parquet(out)["file"]) == sorted(map(show_bytes, expected))
    elif suffix == "csv":
        table = pd.read_csv(out, encoding_errors="surrogateescape", dtype={"file": object})
        assert sorted(table["file"]) == expected
    else:
        assert sorted(row["file"] for row in read_rows(out)) == expected
        assert all(os.path.exists(row["file"]) for row in read_rows(out))  # noqa: PTH110
