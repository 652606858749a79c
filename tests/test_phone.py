"""docs/phone/answer.cc compiled and run: its numbers are those of `probrt predict`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import ai_edge_litert
import numpy as np
import pytest
from cases import BY_NAME
from exported_cases import load_case
from PIL import Image
from shapes import GOLDEN

from probrt.runtime import cli
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.images.decode import read_image

TOP = Path(__file__).parent.parent
SOURCE = TOP / "docs" / "phone" / "answer.cc"
LIBRARY = Path(ai_edge_litert.__file__).parent / "libLiteRt.so"


def build(folder: Path) -> Path:
    """Compiles the program against the tests' declarations of LiteRT's C API, and links LiteRT's own library."""
    for name in re.findall(r'#include "(litert/c/\w+\.h)"', SOURCE.read_text()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('#include "litert_c_api.h"\n')
    program = folder / "answer"
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{folder}", f"-I{TOP / 'tests'}"]
    command = ["g++", *flags, str(SOURCE), str(LIBRARY), f"-Wl,-rpath,{LIBRARY.parent}", "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


@pytest.mark.stress
@pytest.mark.skipif(shutil.which("g++") is None or not LIBRARY.exists(), reason="no g++ or no libLiteRt.so here")
def test_the_program_answers_as_predict_does(tmp_path: Path, measured: Callable[[str, str], None]) -> None:
    """shapes has two files of the bank and no novelty; digits has one file, with novelty."""
    program = build(tmp_path)
    pixels = np.random.default_rng(6).integers(0, 256, (16, 16), dtype=np.uint8)
    largest, numbers = 0.0, 0
    for folder in (GOLDEN / "shapes" / "1", Path(load_case(BY_NAME["digits"]).bundle.path)):
        bundle = Bundle.open(folder)
        files = bundle.files("tflite", "draws", "float32")
        side = bundle.manifest.input.shape[0]
        image = tmp_path / f"{bundle.manifest.model.name}.png"
        Image.fromarray(pixels[:side, :side]).save(image)
        read_image(image, bundle.manifest.input).tofile(image.with_suffix(".f32"))
        heads = [f"{head.name}:{head.kind}" for head in bundle.manifest.heads]
        words = [program, image.with_suffix(".f32"), *heads, *(folder / file.path for file in files)]
        done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        lines = [line.split() for line in done.stdout.splitlines()]
        answers = {name: np.array(values, float) for name, *values in lines}

        rows = image.with_suffix(".jsonl")
        options = [
            "--bundle",
            folder,
            "--engine",
            "litert",
            "--samples",
            "8",
            "--maps",
            "npy",
            "--out",
            rows,
            "--quiet",
        ]
        assert cli.call(["predict", str(image), *map(str, options)]) == 0
        row = json.loads(rows.read_text())
        for head in bundle.manifest.heads:
            for quantity in ("mean", "total", "aleatoric", "epistemic"):
                value = row["heads"][head.name][quantity]
                expected = np.load(value).ravel() if head.per_position else np.ravel(value)
                answer = answers.pop(f"{head.name}.{quantity}")
                assert answer.shape == expected.shape
                largest, numbers = max(largest, float(np.abs(answer - expected).max())), numbers + expected.size
        expected_novelty = [row["novelty"]["score"], row["novelty"]["p_value"]] if row.get("novelty") else []
        assert [float(value[0]) for value in answers.values()] == pytest.approx(expected_novelty, abs=1e-4)
    measured("docs/phone/answer.cc, C++ on LiteRT's C API, against probrt predict", f"{numbers} numbers: {largest:.1g}")
    assert largest < 1e-4


@pytest.mark.stress
@pytest.mark.skipif(shutil.which("g++") is None or not LIBRARY.exists(), reason="no g++ or no libLiteRt.so here")
def test_the_program_refuses_in_a_line(tmp_path: Path) -> None:
    program = build(tmp_path)
    (tmp_path / "image.f32").write_bytes(np.zeros(144, np.float32).tobytes())
    (tmp_path / "large.f32").write_bytes(np.zeros(1440, np.float32).tobytes())
    draws = str(GOLDEN / "shapes" / "1" / "draws-00.tflite")
    cases = {
        ("nowhere.f32", "shape:class", draws): "cannot be read",
        ("image.f32", "shape:class", "nowhere.tflite"): "nowhere.tflite",
        ("image.f32", "colour:class", draws): "no head colour",
        ("image.f32", "shape:class", "shape:class"): "no TFLite file",
        ("large.f32", "shape:class", draws): "more values than the model takes",
        ("image.f32",): "use: answer",
    }
    for words, expected in cases.items():
        done = subprocess.run([program, *words], capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 1
        assert expected in done.stderr.splitlines()[-1]
