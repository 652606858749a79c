"""What each module and command imports, and never imports, in fresh interpreters."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import probrt.runtime
from probrt.runtime.bundle.bundle import Bundle

HEAVY = [
    "tensorflow",
    "keras",
    "tensorflow_probability",
    "onnx",
    "onnxruntime",
    "openvino",
    "pyarrow",
    "nibabel",
    "jinja2",
]


def import_names(code: str, *words: object) -> set[str]:
    """Top-level modules that a fresh interpreter holds after running `code`."""
    code += "\nimport sys, json; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, words)], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    return set(json.loads(process.stdout.splitlines()[-1]))


RUN = "import sys; from probrt.runtime.cli import call; assert call(sys.argv[1:]) == 0"


@pytest.mark.parametrize(
    "module",
    [
        "bundle",
        "bundle.manifest",
        "errors",
        "cli",
        "images",
        "predict.predictor",
        "commands.predict",
        "commands.predict_run",
        "commands.report",
    ],
)
def test_importing_brings_no_engine(module: str) -> None:
    assert not import_names(f"import probrt.runtime.{module}") & {*HEAVY, "ai_edge_litert"}


def test_the_public_names_load_at_their_first_use() -> None:
    light = import_names("import probrt.runtime; assert 'load_predictor' in dir(probrt.runtime)")
    assert not light & {*HEAVY, "ai_edge_litert", "numpy", "msgspec", "PIL"}
    names = "Answer, Bundle, Engine, Prediction, load_predictor, read_image"
    assert not import_names(f"from probrt.runtime import {names}") & {*HEAVY, "ai_edge_litert"}


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute predictor"):
        _ = probrt.runtime.predictor


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["predict", "--help"], ["verify", "--help"]])
def test_help_needs_no_numbers(words: list[str]) -> None:
    assert not import_names(RUN, *words) & {*HEAVY, "ai_edge_litert", "PIL"}


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_looking_at_a_bundle_needs_no_engine(bundle: Bundle, command: str) -> None:
    assert not import_names(RUN, command, bundle.path) & {*HEAVY, "ai_edge_litert"}


@pytest.mark.parametrize(
    ("engine", "needs"), [("litert", "ai_edge_litert"), ("onnxruntime", "onnxruntime"), ("openvino", "openvino")]
)
def test_predicting_brings_its_engine_only(
    bundle: Bundle, pictures: Path, tmp_path: Path, engine: str, needs: str
) -> None:
    words = ["--bundle", bundle.path, "--out", tmp_path / "p.jsonl", "--engine", engine, "--quiet"]
    modules = import_names(RUN, "predict", pictures / "00.png", *words)
    assert needs in modules
    assert not modules & (set(HEAVY) - {needs})
    assert not modules & {"rich", "pydantic"}  # Typer brings pydantic where it reads the words


def test_one_image_starts_with_what_starts_quickly(bundle: Bundle, pictures: Path, tmp_path: Path) -> None:
    words = ["--bundle", bundle.path, "--out", tmp_path / "p.jsonl", "--quiet"]
    modules = import_names(RUN, "predict", pictures / "00.png", *words)
    assert "ai_edge_litert" in modules
    assert not modules & set(HEAVY)


def test_starting_litert_on_the_cpu_starts_no_process(bundle: Bundle) -> None:
    """A search for GPUs starts ldconfig, a compiler and a linker."""
    code = (
        "import sys; started = []\n"
        "sys.addaudithook(lambda event, words: started.append(words) if event == 'subprocess.Popen' else None)\n"
        "from probrt.runtime.bundle.bundle import Bundle; from probrt.runtime.engines import litert\n"
        "bundle = Bundle.open(sys.argv[1]); litert.load(bundle, bundle.files('tflite', 'mean'), 'cpu', 1)\n"
        "assert not started, started"
    )
    assert "ai_edge_litert" in import_names(code, bundle.path)
