"""The MLflow layout: what MLmodel promises is what the loader answers; with the real MLflow too, as a stress test."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from extra_packages import HUB, MLFLOW, environment, install
from shapes import GOLDEN

from probrt.exporter.hub_card import make_hub_card
from probrt.exporter.mlflow_layout import list_outputs, write_mlflow_model
from probrt.exporter.yaml_text import format_yaml
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.errors import InputError, UsageError
from probrt.runtime.images.png import encode_png
from probrt.runtime.predict.predictor import load_predictor
from probrt.runtime.predict.trial import trust_files
from probrt.runtime.serving.mlflow_model import TableModel, _load_pyfunc
from probrt.trainer.evaluate.report import HeadReport, Report

SCORES = {"accuracy": (0.9375, 0.9, 0.97), "NLL": (0.25, float("nan"), float("nan"))}


@pytest.fixture(scope="module", params=["bundle", "shapes/1"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of a committed bundle, with the card and the evaluation of a model directory."""
    bundle = Bundle.open(GOLDEN / request.param)
    trust_files(bundle)
    model = tmp_path_factory.mktemp("model")
    (model / "card.md").write_text("# A model\n\nIt reads digits.\n")
    head = bundle.manifest.heads[0].name
    report = Report(
        model="m", split="test", examples=10, draws=8, data_digest="d", notes=[],
        heads=[HeadReport(name=head, likelihood="categorical", loss="error", scores=SCORES, risk=[], review={})],
    )  # fmt: skip
    import msgspec

    (model / "evaluation.json").write_bytes(msgspec.json.encode(report))
    return write_mlflow_model(bundle, tmp_path_factory.mktemp("mlflow"), model)


def make_pictures(bundle: Bundle, count: int) -> tuple[np.ndarray, pd.DataFrame]:
    height, width, _ = bundle.manifest.input.shape
    pixels = np.random.default_rng(3).integers(0, 256, (count, height, width), dtype=np.uint8)
    return pixels, pd.DataFrame({"image": [encode_png(picture) for picture in pixels]}, index=range(7, 7 + count))


def test_the_answers_are_those_of_the_predictor(written: Path) -> None:
    bundle = Bundle.open(written / "bundle")
    pixels, table = make_pictures(bundle, 5)
    answer = _load_pyfunc(str(written / "bundle")).predict(table)
    expected = load_predictor(bundle)(pixels[..., np.newaxis].astype(np.float32))
    assert list(answer.index) == list(table.index)
    assert set(answer["status"]) == {"ok"}
    for head in bundle.manifest.heads:
        for name, values in expected[head.name].quantities.items():
            got = np.array(answer[f"{head.name}.{name}"].tolist()).reshape(values.shape)
            np.testing.assert_allclose(got, values, rtol=1e-6, atol=1e-7, err_msg=f"{head.name}.{name}")


def test_the_signature_is_what_comes(written: Path) -> None:
    """Every column with its type; one that no row has here is optional."""
    bundle = Bundle.open(written / "bundle")
    _, table = make_pictures(bundle, 2)
    answer = TableModel(bundle).predict(table)
    columns = {column["name"]: column for column in list_outputs(bundle.manifest)}
    assert set(answer.columns) <= set(columns)
    missing = set(columns) - set(answer.columns)
    assert not {name for name in missing if columns[name]["required"]}
    assert {name.partition(".")[2] for name in missing} <= {"set", "coverage"}, missing
    for name in answer.columns:
        _check_type(answer[name].iloc[0], columns[name])


def _check_type(value: object, column: dict[str, object]) -> None:
    if value is None:
        assert not column["required"]
    elif column["type"] == "array":
        assert isinstance(value, list), column
        _check_type(value[0], {"name": column.get("name"), "required": True} | column["items"])
    else:
        types = {"string": str, "double": float, "long": (int, np.integer), "boolean": (bool, np.bool_)}
        assert isinstance(value, types[column["type"]]), (value, column)


def test_a_picture_that_cannot_be_read_is_a_row(written: Path) -> None:
    bundle = Bundle.open(written / "bundle")
    _, table = make_pictures(bundle, 3)
    table.loc[8, "image"] = b"no picture"
    answer = TableModel(bundle).predict(table)
    assert list(answer["status"]) == ["ok", "error", "ok"]
    assert "not an image" in answer["error"][8]


def test_params_choose_draws(written: Path) -> None:
    model = TableModel(Bundle.open(written / "bundle"))
    _, table = make_pictures(Bundle.open(written / "bundle"), 1)
    assert model.predict(table, {"samples": 8})["draws"].iloc[0] == 8
    with pytest.raises(UsageError, match="samples"):
        model.predict(table, {"samples": 0})


@pytest.mark.parametrize("table", [pd.DataFrame({"picture": [b""]}), pd.DataFrame({"image": ["a.png"]})])
def test_another_table_is_refused(written: Path, table: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="image"):
        TableModel(Bundle.open(written / "bundle")).predict(table)


def test_a_version_is_not_overwritten(written: Path, tmp_path: Path) -> None:
    before = (written / "MLmodel").read_bytes()
    with pytest.raises(UsageError, match="exists"):
        write_mlflow_model(Bundle.open(written / "bundle"), written.parent.parent, tmp_path)
    assert (written / "MLmodel").read_bytes() == before


def test_without_an_evaluation_the_card_has_what_training_recorded(tmp_path: Path) -> None:
    import msgspec

    manifest = Bundle.open(GOLDEN / "bundle").manifest
    assert "model-index" not in make_hub_card(manifest, tmp_path)
    training = {"metrics": {"validation": {"digit": 0.5}, "test": {"digit": 0.75}}, "data_digest": "abc"}
    manifest = msgspec.structs.replace(
        manifest, provenance=msgspec.structs.replace(manifest.provenance, training=training)
    )
    card = make_hub_card(manifest, tmp_path)
    assert "value: 0.75" in card
    assert "split: test" in card


def test_a_damaged_evaluation_is_refused(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text("{}")
    with pytest.raises(UsageError, match=r"evaluation\.json: not readable"):
        make_hub_card(Bundle.open(GOLDEN / "bundle").manifest, tmp_path)


def test_the_card_has_the_scores_with_their_intervals(written: Path) -> None:
    card = (written / "README.md").read_text()
    assert "| accuracy | 0.9375 | 0.9000 to 0.9700 |" in card
    assert "| NLL | 0.2500 |  |" in card


def test_yaml_of_every_kind_of_value() -> None:
    value = {"a": [1, {"b": "on", "c": [2.5, None]}, [True]], "empty": [], "d": {"e": "x: y", "f": ""}, "g": "name"}
    assert format_yaml(value) == (
        'a:\n- 1\n- b: "on"\n  c:\n  - 2.5\n  - null\n- - true\nempty: []\nd:\n  e: "x: y"\n  f: ""\ng: name\n'
    )


LOAD = """
import json, sys
import mlflow.pyfunc, pandas, numpy
model = mlflow.pyfunc.load_model(sys.argv[1])
schema = model.metadata.signature
table = pandas.read_pickle(sys.argv[2])
answer = model.predict(table, params=json.loads(sys.argv[3]))
print(json.dumps({"inputs": schema.inputs.input_names(), "outputs": schema.outputs.input_names(),
                  "params": [p.name for p in schema.params], "rows": json.loads(answer.to_json(orient="records")),
                  "loader": model.metadata.flavors["python_function"]["loader_module"]}))
"""


def run_python(code: str, *words: object, packages: Path) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        capture_output=True, text=True, check=False, env=environment(packages),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.stress
def test_the_real_mlflow_loads_it(written: Path, tmp_path: Path, measured: Callable[[str, str], None]) -> None:
    bundle = Bundle.open(written / "bundle")
    _, table = make_pictures(bundle, 3)
    table.to_pickle(tmp_path / "table.pkl")
    expected = json.loads(TableModel(bundle).predict(table, {"samples": 8}).to_json(orient="records"))
    packages = install(*MLFLOW)
    loaded = run_python(LOAD, written, tmp_path / "table.pkl", '{"samples": 8}', packages=packages)
    assert loaded["rows"] == expected
    assert loaded["inputs"] == ["image"]
    assert loaded["params"] == ["samples", "seed"]
    assert loaded["outputs"] == [column["name"] for column in list_outputs(bundle.manifest)]
    measured(f"`mlflow.pyfunc.load_model` of {MLFLOW[0]} on {bundle.label}", "rows equal to the loader's own")


@pytest.mark.stress
def test_the_real_mlflow_serves_it(written: Path, tmp_path: Path, measured: Callable[[str, str], None]) -> None:
    bundle = Bundle.open(written / "bundle")
    _, table = make_pictures(bundle, 3)
    table.loc[8, "image"] = b"no picture"
    expected = json.loads(TableModel(bundle).predict(table, {"samples": 8}).to_json(orient="records"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["models", "serve", "-m", written, "-p", port, "-h", "127.0.0.1", "--env-manager", "local"]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path, start_new_session=True,
        env=environment(install(*MLFLOW)),
    )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        begin = time.monotonic()
        while True:
            assert server.poll() is None, server.communicate()[0]
            assert time.monotonic() < begin + 120
            try:
                urllib.request.urlopen(f"{url}/ping", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        encoded = [[base64.b64encode(content).decode()] for content in table["image"]]
        body = {"dataframe_split": {"columns": ["image"], "data": encoded}, "params": {"samples": 8}}
        request = urllib.request.Request(
            f"{url}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            rows = json.loads(answer.read())["predictions"]
        wrong = urllib.request.Request(
            f"{url}/invocations",
            json.dumps({"dataframe_split": {"columns": ["other"], "data": [["x"]]}}).encode(),
            {"Content-Type": "application/json"},
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(wrong, timeout=60)
        refused.value.close()
        assert refused.value.code == 400
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.communicate(timeout=30)
    assert [row["status"] for row in rows] == ["ok", "error", "ok"]
    for row, want in zip(rows, expected, strict=True):
        for name, value in want.items():
            if value is None:  # the server writes NaN for a number that is missing
                assert row[name] is None or np.isnan(row[name])
            elif np.asarray(value).dtype.kind == "f":  # pandas has rounded the expected ones to ten decimals
                np.testing.assert_allclose(row[name], value, rtol=0, atol=1e-9)
            else:
                assert row[name] == value
    measured(f"`mlflow models serve` of {MLFLOW[0]} on {bundle.label}", "pictures in base64, rows equal; 400 otherwise")


READ_CARD = """
import json, sys
from huggingface_hub import ModelCard
card = ModelCard.load(sys.argv[1])
results = [[r.task_type, r.metric_type, r.metric_value, r.dataset_split] for r in card.data.eval_results]
print(json.dumps({"library": card.data.library_name, "task": card.data.pipeline_tag, "results": results,
                  "text": card.text}))
"""


@pytest.mark.stress
def test_the_hub_reads_the_card(written: Path) -> None:
    card = run_python(READ_CARD, written / "README.md", packages=install(*HUB))
    assert card["library"] == "probrt"
    assert card["task"] == "image-classification"
    assert card["results"] == [
        ["image-classification", "accuracy", 0.9375, "test"],
        ["image-classification", "nll", 0.25, "test"],
    ]
    assert "It reads digits." in str(card["text"])
