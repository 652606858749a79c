"""`probrt export --novelty-map`: who has a map, ensembles, and the rows, files, overlays and report that show it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import BY_NAME, DIGIT, INK
from exported_cases import ExportedCase, load_case
from PIL import Image

from probrt.exporter.ensemble import make_ensemble
from probrt.exporter.graphs import evaluate_mean
from probrt.exporter.plan import ExportRequest, plan_export
from probrt.exporter.records import make_head_records, make_novelty_record
from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import UsageError
from probrt.runtime.predict.predictor import load_predictor
from probrt.runtime.rows.readers import read_rows
from probrt.trainer import backbones, store
from probrt.trainer.build import build_model
from probrt.trainer.calibration.novelty import add_novelty
from probrt.trainer.data.read import Examples
from probrt.trainer.layers.weight_settings import WeightSettings
from probrt.trainer.model import Model
from probrt.trainer.variational.handlers import MeanHandler, use_handler


def make_model(*heads: Any, name: str = "net", novelty: bool = True) -> Model:
    input = Input(shape=[8, 8, 1], colour="none", resize="none", range=(-1.0, 1.0))
    model = build_model(name, input, heads, backbone=backbones.UNet(widths=(3, 4), depth=1), weights=WeightSettings())
    rng = np.random.default_rng(0)
    splits = [
        Examples(tuple(map(str, range(60))), rng.uniform(-0.5, 0.5, (60, 8, 8, 1)).astype(np.float32), {})
        for _ in range(2)
    ]
    return add_novelty(model, *splits, seed=0) if novelty else model


def save(model: Model, folder: Path) -> Path:
    store.save_model(model, folder, images=np.zeros((4, 8, 8, 1), np.float32), provenance={})
    return folder


def test_only_the_option_puts_the_map_into_the_graphs(tmp_path: Path) -> None:
    folder = save(make_model(DIGIT, INK), tmp_path / "model")
    asked, plain = (plan_export(folder, ExportRequest(novelty_map=novelty_map)).model for novelty_map in (True, False))
    images = np.random.default_rng(1).uniform(-1, 1, (3, 8, 8, 1)).astype(np.float32)
    for model, sides in ((asked, [8, 8]), (plain, False)):
        with use_handler(MeanHandler()):
            answer = evaluate_mean(model, images)
        assert ("novelty.map" in answer) == bool(sides)
        assert make_novelty_record(model).map == sides
        assert make_novelty_record(model).outputs.keys() == {name for name in answer if name.startswith("novelty.")}


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: make_model(DIGIT), "it has no two-dimensional head per position, or leave the option out"),
        (lambda: make_model(INK, novelty=False), "it has no novelty; `probrt calibrate` adds it"),
        (lambda: make_model(INK).without_novelty_map(), "it was fitted without one; train it again"),
    ],
)
def test_a_model_without_a_map_is_refused(
    make: Callable[[], Model], reason: str, tmp_path: Path, called: Callable[..., Any]
) -> None:
    folder = save(make(), tmp_path / "model")
    with pytest.raises(UsageError, match=reason):
        plan_export(folder, ExportRequest(novelty_map=True))
    done = called("export", folder, "--novelty-map", cwd=tmp_path)
    assert done.code == 2
    assert done.err.startswith("probrt: --novelty-map:")
    assert reason in done.err.splitlines()[-1]
    assert not (tmp_path / "artifacts").exists()


def test_an_ensemble_has_the_map_of_its_first_member() -> None:
    members = [make_model(DIGIT, INK), make_model(DIGIT, INK).without_novelty_map()]
    ensemble = make_ensemble("", [Path("a"), Path("b")], members, [make_head_records(model) for model in members])
    images = np.random.default_rng(1).uniform(-1, 1, (3, 8, 8, 1)).astype(np.float32)
    with use_handler(ensemble.constant_mean_handler()):
        joint = evaluate_mean(ensemble, images)["novelty.map"]
    with use_handler(MeanHandler()):
        first = evaluate_mean(members[0], images)["novelty.map"]
    np.testing.assert_allclose(joint, first, rtol=1e-4, atol=1e-3)
    assert make_novelty_record(ensemble).map == [8, 8]


@pytest.fixture(scope="module")
def exported() -> ExportedCase:
    return load_case(BY_NAME["unet2d_dynamic"])


@pytest.fixture
def images(tmp_path: Path) -> list[np.ndarray]:
    """Images of two sizes in `images/`."""
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(3)
    arrays = [rng.uniform(-1, 1, (*sides, 2)).astype(np.float32) for sides in ((12, 10), (7, 9))]
    for index, array in enumerate(arrays):
        np.save(tmp_path / "images" / f"{index}.npy", array)
    return arrays


@pytest.mark.parametrize("engine", ["litert", "onnxruntime", "openvino"])
def test_rows_name_the_maps(
    exported: ExportedCase, images: list[np.ndarray], tmp_path: Path, called: Callable[..., Any], engine: str
) -> None:
    words = ["predict", tmp_path / "images", "--bundle", exported.bundle.path, "--engine", engine, "--overlay"]
    done = called(*words, "--out", tmp_path / "p.jsonl", cwd=tmp_path)
    assert done.code == 0, done.err
    predictor = load_predictor(exported.bundle, engine=engine)
    for pixels, row in zip(images, read_rows(tmp_path / "p.jsonl"), strict=True):
        assert set(row["novelty"]) == {"score", "p_value", "unknown", "map", "overlay"}
        scores = np.load(tmp_path / row["novelty"]["map"])
        assert (scores.dtype, scores.shape) == (np.float32, pixels.shape[:2])
        np.testing.assert_allclose(scores, predictor(pixels[None]).novelty.map[0], rtol=1e-3, atol=1e-3)
        with Image.open(tmp_path / row["novelty"]["overlay"]) as picture:
            assert picture.size == pixels.shape[1::-1]
            yellow = np.asarray(picture)[scores >= 6]
        assert (yellow == (255, 255, 0)).all()


def test_columns_report_and_runs_without_maps(
    exported: ExportedCase, images: list[np.ndarray], tmp_path: Path, called: Callable[..., Any]
) -> None:
    words = ["predict", tmp_path / "images", "--bundle", exported.bundle.path, "--engine", "litert", "--samples", 8]
    assert called(*words, "--overlay", "--out", tmp_path / "p.csv", cwd=tmp_path).code == 0
    for row in csv.DictReader((tmp_path / "p.csv").read_text().splitlines()):
        assert Path(tmp_path / row["novelty.map"]).suffix == ".npy"
        assert (tmp_path / row["novelty.overlay"]).exists()
    assert called("report", tmp_path / "p.csv", cwd=tmp_path).code == 0
    page = (tmp_path / "p.html").read_text()
    data = json.loads(page.split('<script type="application/json" id="data">')[1].split("</script>")[0])
    for item in data["items"]:
        assert set(item["heads"]["novelty"]["maps"]) == {"map", "overlay"}
        assert all(picture.startswith("data:image/webp") for picture in item["heads"]["novelty"]["maps"].values())
    assert called(*words, "--maps", "none", "--out", tmp_path / "n.csv", cwd=tmp_path).code == 0
    (names, *_) = csv.reader((tmp_path / "n.csv").read_text().splitlines())
    assert [name for name in names if name.startswith("novelty.")] == [
        "novelty.score",
        "novelty.p_value",
        "novelty.unknown",
    ]
    assert len(images) == 2
