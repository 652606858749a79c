"""The HTML report: what it holds, what it survives, and a person's clicks in real Chromium."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from probrt.runtime import cli
from probrt.runtime.bundle import Bundle


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    return json.loads(found.group(1))


@pytest.fixture
def predictions(bundle: Bundle, pictures: Path, tmp_path: Path) -> Path:
    out = tmp_path / "p.jsonl"
    (tmp_path / "bad.png").write_bytes(b"x")
    words = ["--bundle", bundle.path, "--out", out, "--engine", "litert", "--quiet"]
    assert cli.call(["predict", *map(str, [pictures, tmp_path / "bad.png", *words])]) == 1
    return out


def test_the_page_holds_every_row_and_nothing_from_outside(predictions: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("file_name,shape\n00.png,round\n01.png,flat\n02.png,tall\n")
    assert cli.call(["report", str(predictions), "--labels", str(labels)]) == 0
    page = predictions.with_suffix(".html")
    data = data_of(page)
    kinds = ["epistemic", "total", "aleatoric"]
    assert data["heads"] == {"shape": [*kinds, "probability"], "slant": kinds, "ink": []}
    rows = [json.loads(line) for line in predictions.read_text().splitlines()]
    for row, item in zip(rows, data["items"], strict=True):
        assert item["file"] == row["file"]
        assert item["error"] == row["error"]
        if row["status"] == "ok":
            assert item["image"].startswith("data:image/webp;base64,")
            assert item["heads"]["ink"]["maps"].keys() == {"mean", "total", "aleatoric", "epistemic"}
            assert item["heads"]["shape"]["epistemic"] == row["heads"]["shape"]["epistemic"]
    labelled = [item["heads"]["shape"] for item in data["items"] if item["heads"].get("shape", {}).get("truth")]
    assert len(labelled) == 3
    assert all(head["wrong"] == (head["truth"] != head["label"]) for head in labelled)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page.read_text())
    assert cli.call(["report", str(predictions)]) == 2
    assert cli.call(["report", str(predictions), "--overwrite"]) == 0


def test_names_cannot_break_out_of_the_page(bundle: Bundle, pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    folder.mkdir()
    name = folder / "<!--<script>&\u2028\n.png"
    name.write_bytes((pictures / "00.png").read_bytes())
    words = ["--bundle", bundle.path, "--out", tmp_path / "p.jsonl", "--engine", "litert", "--quiet"]
    assert cli.call(["predict", *map(str, [folder, *words])]) == 0
    assert cli.call(["report", str(tmp_path / "p.jsonl")]) == 0
    text = (tmp_path / "p.html").read_text()
    assert "<img src=x" not in text
    assert text.count("<script") == 2
    assert "onerror=alert(1)" in data_of(tmp_path / "p.html")["items"][0]["file"]


@pytest.mark.parametrize("content", ["", "{}\n", "[1]\n", '{"file": 3, "heads": {}}\n', "nonsense\n"])
def test_what_is_no_predictions_is_refused(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.jsonl").write_text(content)
    assert cli.call(["report", str(tmp_path / "p.jsonl")]) == 2
    assert "p.jsonl" in capsys.readouterr().err


def chromium() -> Any:
    spec = importlib.util.spec_from_file_location("chromium", Path(__file__).with_name("chromium.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CARDS = "[...document.querySelectorAll('.card')]"


@pytest.mark.stress
def test_a_person_can_use_it_in_chromium(predictions: Path, tmp_path: Path) -> None:
    module = chromium()
    if module.browser() is None:
        pytest.skip("no Chromium here")
    rows = [json.loads(line) for line in predictions.read_text().splitlines()]
    labels = tmp_path / "labels.csv"
    names = [Path(row["file"]).name for row in rows]
    labels.write_text("file_name,shape\n" + "".join(f"{name},flat\n" for name in names))
    assert cli.call(["report", str(predictions), "--labels", str(labels)]) == 0
    good = [row for row in rows if row["status"] == "ok"]
    order = sorted(good, key=lambda row: -row["heads"]["shape"]["epistemic"])
    wrong = [row for row in good if row["heads"]["shape"]["label"] != "flat"]
    with module.Page(tmp_path / "profile") as page:
        page.open(predictions.with_suffix(".html"))
        assert page.run("document.getElementById('count').textContent") == "21 of 21"
        assert page.run(f"{CARDS}[0].title") == order[0]["file"]
        page.run("order.value = '1', order.onchange()")
        assert page.run(f"{CARDS}[0].title") == order[-1]["file"]
        page.run("show.value = 'wrong', show.onchange()")
        assert page.run(f"{CARDS}.length") == len(wrong)
        page.run("show.value = 'errors', show.onchange()")
        assert page.run(f"{CARDS}.map(c => c.title)") == [str(tmp_path / "bad.png")]
        page.run("show.value = 'all', show.onchange(); label.value = 'tall', label.onchange()")
        tall = [row for row in good if row["heads"]["shape"]["label"] == "tall"]
        assert page.run("document.getElementById('count').textContent") == f"{len(tall)} of 21"
        page.run("label.value = '', order.value = '-1', label.onchange()")
        page.run("overlay.value = 'ink.epistemic', overlay.onchange()")
        assert page.run("document.querySelectorAll('.card .stack img').length") == 40
        page.screenshot(tmp_path / "grid.png")
        page.click(".card")
        assert page.run("document.getElementById('detail').open") is True
        assert page.run("document.querySelector('#detail h2').textContent") == order[0]["file"]
        page.press("ArrowRight")
        assert page.run("document.querySelector('#detail h2').textContent") == order[1]["file"]
        page.screenshot(tmp_path / "detail.png")
        page.press("Escape")
        assert page.run("document.getElementById('detail').open") is False
        page.click("#histogram rect[height='54']")
        inside = int(str(page.run("document.getElementById('count').textContent")).split()[0])
        assert 0 < inside < 20
        assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []
    for name in ("grid.png", "detail.png"):
        assert np.asarray(Image.open(tmp_path / name).convert("L")).std() > 5


@pytest.mark.stress
def test_ten_thousand_rows_keep_the_page_small_and_quick(predictions: Path, tmp_path: Path) -> None:
    module = chromium()
    if module.browser() is None:
        pytest.skip("no Chromium here")
    lines = predictions.read_text().splitlines()[:20]
    (tmp_path / "many.jsonl").write_text("\n".join(lines * 500) + "\n")
    assert cli.call(["report", str(tmp_path / "many.jsonl")]) == 0
    with module.Page(tmp_path / "profile") as page:
        page.open(tmp_path / "many.html")
        assert page.run("document.getElementById('count').textContent") == "10000 of 10000"
        assert page.run(f"{CARDS}.length") < 200
        page.run("grid.scrollTop = grid.scrollHeight, grid.onscroll()")
        assert 0 < page.run(f"{CARDS}.length") < 200
