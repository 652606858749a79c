"""Nothing but probrt's own lines is printed, and with `--quiet` no line at all."""

import io
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.hush import hush, hush_libraries

DECODE = """
import sys
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.images.loader import load_image
input = Bundle.open(sys.argv[1]).manifest.input
for name in sys.argv[2:]:
    load_image(0, name, input)
"""


@pytest.fixture
def noisy(tmp_path: Path) -> list[str]:
    """Images that libtiff prints about in C, and Pillow as a Python warning."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200), dtype=np.uint8))
    names = []
    for compression in ("tiff_lzw", "tiff_adobe_deflate"):
        stream = io.BytesIO()
        picture.save(stream, "TIFF", compression=compression)
        content = bytearray(stream.getvalue())
        content[500:2000] = b"\xff" * 1500
        names.append(str(tmp_path / f"{compression}.tif"))
        Path(names[-1]).write_bytes(content)
    names.append(str(tmp_path / "exif.jpg"))
    picture.save(names[-1], exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0zzzzzzzzzz")
    return names


def run(program: str, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, words)], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("engine", ["litert", "onnxruntime"])
def test_libraries_print_nothing(bundle: Bundle, noisy: list[str], tmp_path: Path, engine: str) -> None:
    alone = run(DECODE, bundle.path, *noisy).stderr
    assert "ZIPDecode" in alone
    assert "Corrupt EXIF" in alone
    program = "from probrt.runtime.cli import main; main()"
    words = ["predict", *noisy, "--bundle", bundle.path, "--engine", engine, "--out", tmp_path / "p.jsonl"]
    quiet = run(program, *words, "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (1, "", "")
    loud = run(program, *words, "--overwrite")
    assert loud.returncode == 1
    lines = loud.stderr.splitlines()
    assert any("3 rows, 2 errors" in line for line in lines)
    assert all(line.startswith("probrt: ") for line in lines)


def test_a_fault_is_printed_although_libraries_are_silent(tmp_path: Path) -> None:
    result = run("from probrt.runtime.cli import main; main()", "predict", "gone", "--bundle", tmp_path, "--quiet")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1


def test_overlapping_silences_give_standard_error_back(capfd: pytest.CaptureFixture[str]) -> None:
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with hush():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=stay)
    with hush():
        thread.start()
        inside.wait(10)
        os.write(2, b"dropped\n")
    os.write(2, b"dropped too\n")
    leave.set()
    thread.join()
    os.write(2, b"printed\n")
    assert capfd.readouterr().err == "printed\n"


def test_the_program_prints_while_libraries_are_silent(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with hush_libraries():
            os.write(2, b"a library\n")
            warnings.warn("a library", stacklevel=1)
            print("the program", file=sys.stderr)
    assert capfd.readouterr().err == "the program\n"
