"""The standard metadata of TFLite files, read by the readers of TFLite Support and MediaPipe."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import extra_packages
import numpy as np
import pytest
from cases import DIGIT, built
from exported_cases import ExportedCase, make_examples, make_images
from PIL import Image
from shapes import GOLDEN

from probrt.exporter import tflite_metadata
from probrt.exporter.export import export
from probrt.exporter.plan import ExportRequest
from probrt.exporter.tflite_convert import add_metadata
from probrt.exporter.tflite_file import unpack_model
from probrt.runtime import cli
from probrt.runtime.bundle import manifest as m
from probrt.trainer import backbones, store
from probrt.trainer.calibration.novelty import add_novelty

TFLITE_SUPPORT = "tensorflow_lite_support.metadata.python.metadata"
MEDIAPIPE = "mediapipe.tasks.python.metadata.metadata"
# Both readers, and the function of their C++ library that names the oldest reader for some metadata.
READ = """
import importlib, json, sys
reader = importlib.import_module(sys.argv[1])
files = {}
for path in sys.argv[2:]:
    content = open(path, "rb").read()
    shown = reader.MetadataDisplayer.with_model_buffer(content)
    names = shown.get_packed_associated_file_list()
    files[path] = {
        "metadata": json.loads(shown.get_metadata_json()),
        "files": {name: shown.get_associated_file_buffer(name).decode() for name in names},
        "oldest": reader._pywrap_metadata_version.GetMinimumMetadataParserVersion(bytes(shown.get_metadata_buffer())),
    }
print("\\n" + json.dumps(files))
"""

# What MediaPipe's image classifier answers: by the name of each output, the scores by label or index.
CLASSIFY = """
import json, sys
import mediapipe
import numpy as np
from mediapipe.tasks.python import vision
from PIL import Image
with vision.ImageClassifier.create_from_model_path(sys.argv[1]) as classifier:
    pixels = np.array(Image.open(sys.argv[2]))
    answer = classifier.classify(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=pixels))
    heads = {
        head.head_name: {item.category_name or str(item.index): item.score for item in head.categories}
        for head in answer.classifications
    }
print("\\n" + json.dumps(heads))
"""


def read(reader: str, *paths: Path) -> dict[str, Any]:
    """What a reader shows of each file, by its path."""
    pins = extra_packages.TFLITE_SUPPORT if reader == TFLITE_SUPPORT else extra_packages.MEDIAPIPE
    environment = extra_packages.environment(extra_packages.install(*pins))
    command = [sys.executable, "-c", READ, reader, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    shown: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return shown


@pytest.mark.parametrize("case", ["digits"], indirect=True)
def test_labels_lie_in_a_zip_behind_the_model(bundle: ExportedCase) -> None:
    for file in bundle.bundle.manifest.files:
        if file.format != "tflite":
            continue
        path = bundle.bundle.path / file.path
        entries = {entry.name for entry in unpack_model(path.read_bytes()).metadata}
        assert {b"TFLITE_METADATA", b"probrt"} <= entries
        with zipfile.ZipFile(path) as archive:
            assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
            for head in bundle.bundle.manifest.heads:
                assert archive.read(f"{head.name}.labels.txt").decode().splitlines() == head.labels


def test_labels_of_several_lines_stay_one() -> None:
    head = m.HeadRecord(
        name="a",
        likelihood="categorical",
        kind="class",
        combine="entropy",
        labels=["x\ny", "ü z"],
        outputs={"mean": [2]},
    )
    content = tflite_metadata.append_labels(b"model", [head])
    assert content == tflite_metadata.append_labels(b"model", [head])
    assert content.startswith(b"model")
    assert "x y\nü z\n".encode() in content


@pytest.mark.stress
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="TFLite Support has no package for this Python")
@pytest.mark.parametrize("case", ["digits", "layers1d"], indirect=True)
def test_the_standard_readers_show_everything(bundle: ExportedCase, measured: Callable[[str, str], None]) -> None:
    manifest = bundle.bundle.manifest
    paths = [bundle.bundle.path / file.path for file in manifest.files if file.format == "tflite"]
    shown = read(TFLITE_SUPPORT, *paths)
    assert read(MEDIAPIPE, *paths) == shown
    for path in paths:
        metadata, files = shown[str(path)]["metadata"], shown[str(path)]["files"]
        assert metadata["min_parser_version"] == shown[str(path)]["oldest"]
        assert files == {
            f"{head.name}.labels.txt": "".join(f"{label}\n" for label in head.labels) for head in manifest.heads
        }
        model = unpack_model(path.read_bytes())
        (graph,) = metadata["subgraph_metadata"]
        for tensors, order, signature in (
            (graph["input_tensor_metadata"], model.subgraphs[0].inputs, model.signatureDefs[0].inputs),
            (graph["output_tensor_metadata"], model.subgraphs[0].outputs, model.signatureDefs[0].outputs),
        ):
            names = {int(entry.tensorIndex): entry.name.decode() for entry in signature}
            assert [tensor["name"] for tensor in tensors] == [names[int(index)] for index in order]
            assert all(tensor["description"] for tensor in tensors)
        outputs = {tensor["name"]: tensor for tensor in graph["output_tensor_metadata"]}
        for head in manifest.heads:
            (labels,) = outputs[f"{head.name}.mean"]["associated_files"]
            assert (labels["name"], labels["type"]) == (f"{head.name}.labels.txt", "TENSOR_AXIS_LABELS")
        assert sum("associated_files" in output for output in outputs.values()) == len(manifest.heads)
    measured(
        f"standard metadata of TFLite files ({bundle.model.name}): TFLite Support 0.4.4 and MediaPipe 0.10.21",
        f"{len(paths)} files read, the same in both",
    )


@pytest.mark.stress
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="TFLite Support has no package for this Python")
def test_inputs_are_described(tmp_path: Path) -> None:
    """A reader makes (pixel - mean) / std of pixels from 0 to 255: these must be the raw values of the range."""
    inputs = {
        "grey": m.Input(shape=[12, 10, 1], colour="grey", resize="bilinear", range=(0.0, 255.0)),
        "deep": m.Input(shape=[12, 10, 3], colour="rgb", resize="bilinear", range=(0.0, 65535.0)),
        "unit": m.Input(shape=[None, None, 3], colour="rgb", resize="none", range=(0.0, 1.0)),
        "scan": m.Input(shape=[12, 10, 1], colour="none", resize="none", range=(-1000.0, 3000.0), unit="HU"),
        "open": m.Input(shape=[12, 10, 1], colour="none", resize="none"),
    }
    content = (GOLDEN / "shapes" / "1" / "mean.tflite").read_bytes()
    for name, input in inputs.items():
        standard = tflite_metadata.write_metadata(content, name="x", description="y", input=input, heads=[])
        (tmp_path / name).write_bytes(add_metadata(content, {tflite_metadata.NAME: standard}))
    shown = read(TFLITE_SUPPORT, *(tmp_path / name for name in inputs))
    images = {
        name: shown[str(tmp_path / name)]["metadata"]["subgraph_metadata"][0]["input_tensor_metadata"][0]
        for name in inputs
    }
    for name, raw in (("grey", 255.0), ("deep", 65535.0), ("unit", 1.0)):
        (step,) = images[name]["process_units"]
        assert (255.0 - step["options"]["mean"][0]) / step["options"]["std"][0] == pytest.approx(
            raw, rel=1e-4
        )  # of six digits
        assert images[name]["stats"] == {"max": [raw], "min": [0.0]}
        colour = "GRAYSCALE" if name == "grey" else "RGB"
        assert images[name]["content"]["content_properties"]["color_space"] == colour
    size = {"width": 10, "height": 12}
    assert images["grey"]["content"]["content_properties"]["default_size"] == size
    assert "default_size" not in images["unit"]["content"]["content_properties"]
    assert images["scan"]["stats"] == {"max": [3000.0], "min": [-1000.0]}
    assert "HU" in images["scan"]["description"]
    for name in ("scan", "open"):
        assert images[name]["content"]["content_properties_type"] == "FeatureProperties"
        assert "process_units" not in images[name]
    assert "stats" not in images["open"]


@pytest.mark.stress
def test_the_image_classifier_of_mediapipe_runs_a_colour_model(
    tmp_path: Path, measured: Callable[[str, str], None]
) -> None:
    """It finds input, outputs and labels by the metadata alone; each output is a head of scores to it."""
    pictures = {"colour": "rgb", "range": (0.0, 255.0)}
    model = built("colour", [16, 16, 3], [DIGIT], backbones.ConvStack(widths=(4,)), **pictures).model()
    model = add_novelty(model, make_examples(model, 0), make_examples(model, 1), seed=0)
    store.save_model(model, tmp_path / "model", images=make_images(model)[0], targets={}, provenance={})
    request = ExportRequest(draws=8, formats=("tflite",), variants=("draws",), select=False)
    export(tmp_path / "model", tmp_path, request)
    picture = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(picture)

    environment = extra_packages.environment(extra_packages.install(*extra_packages.MEDIAPIPE_TASKS))
    command = [sys.executable, "-c", CLASSIFY, str(tmp_path / "colour" / "1" / "draws-00.tflite"), str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    heads = json.loads(done.stdout.splitlines()[-1])

    options = ["--bundle", tmp_path / "colour", "--engine", "litert", "--out", tmp_path / "p.jsonl", "--quiet"]
    assert cli.call(["predict", str(picture), *map(str, options)]) == 0
    row = json.loads((tmp_path / "p.jsonl").read_text())
    digit = row["heads"]["digit"]
    expected = {f"digit.{name}": {"0": digit[name]} for name in ("total", "aleatoric", "epistemic")}
    expected["digit.mean"] = dict(zip(DIGIT.labels, digit["mean"], strict=True))
    expected |= {f"novelty.{name}": {"0": row["novelty"][name]} for name in ("score", "p_value")}
    assert heads.keys() == expected.keys()
    for name, scores in expected.items():
        assert heads[name] == pytest.approx(scores, abs=1e-4), name
    measured(
        "MediaPipe 1.2.3, ImageClassifier on draws-00.tflite of a colour model", f"{len(heads)} outputs as predict"
    )
