"""The HTML report: what it holds, what it survives, and a person's clicks in real Chromium."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chromium
import numpy as np
import pytest
from PIL import Image

from probrt.runtime import cli
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import Calibration, RiskPoint
from probrt.runtime.commands.thumbnails import make_thumbnail, middle_slice
from probrt.runtime.images.decode import read_image
from probrt.runtime.predict.predictor import load_predictor


def read_data(page: Path) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert match
    return json.loads(match.group(1))


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
    data = read_data(page)
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


def test_labels_belong_to_the_files_whose_names_end_in_theirs(
    predictions: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name may be a base name or have folders, which win; an empty cell is no label; no match at all is refused."""
    labels = tmp_path / "labels.csv"
    lines = ["00.png,flat", f"{pictures.name}/00.png,round", f"./{pictures.name}/more/15.png,tall", "01.png,"]
    labels.write_text("\n".join(["file_name,shape", *lines, "other/02.png,flat"]))
    assert cli.call(["report", str(predictions), "--labels", str(labels)]) == 0
    printed = capsys.readouterr()
    assert re.search(r"2 with true labels, shape \d+\.\d% right", printed.out)
    assert "2 of 5 names label no predicted file" in printed.err  # 00.png, and 02.png of another folder
    truths = {
        Path(item["file"]).name: item["heads"]["shape"]["truth"]
        for item in read_data(predictions.with_suffix(".html"))["items"]
        if "truth" in item["heads"].get("shape", {})
    }
    assert truths == {"00.png": "round", "15.png": "tall"}
    labels.write_text("file_name,shape\n")
    assert cli.call(["report", str(predictions), "--labels", str(labels), "--overwrite"]) == 2
    assert "names no file" in capsys.readouterr().err
    labels.write_text("file_name,shape\nnowhere/00.png,round\n")
    assert cli.call(["report", str(predictions), "--labels", str(labels), "--overwrite"]) == 2
    assert "none of its names (nowhere/00.png) is the end of a predicted file's name" in capsys.readouterr().err


def test_labels_may_be_a_table_of_training_data(predictions: Path, tmp_path: Path) -> None:
    """A spreadsheet in German saves semicolons and Windows-1252."""
    labels = tmp_path / "labels.csv"
    labels.write_bytes("file_name;Größe;shape\n00.png;3;round\n01.png;4;flat\n".encode("cp1252"))
    assert cli.call(["report", str(predictions), "--labels", str(labels)]) == 0
    items = read_data(predictions.with_suffix(".html"))["items"]
    assert [item["heads"]["shape"]["truth"] for item in items[:2]] == ["round", "flat"]


def test_an_array_that_is_not_finite_has_no_thumbnail(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[0.0, np.nan], [1.0, 2.0]]))
    with pytest.raises(ValueError, match="not finite"):
        middle_slice((tmp_path / "a.npy").read_bytes())
    assert make_thumbnail(str(tmp_path / "a.npy")) == ""


@pytest.fixture
def risk_bundle(bundle: Bundle, pictures: Path, tmp_path: Path, rewrite: Callable[..., Bundle]) -> Bundle:
    """The bundle with a risk curve of the class head that lets about half through."""
    shutil.copytree(bundle.path, tmp_path / "risky" / "1")
    images = [read_image(path, bundle.manifest.input) for path in sorted(pictures.rglob("*.png"))]
    middle = float(np.median(load_predictor(bundle, engine="litert")(images)["shape"].total))
    curve = [RiskPoint(threshold=middle, kept=0.5, risk=0.1)]
    return rewrite(tmp_path / "risky" / "1", calibration=[Calibration(head="shape", risk=curve)])


def test_every_format_of_rows_makes_the_same_page(risk_bundle: Bundle, mixed: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("file_name,shape,slant\n00.png,round,0.1\n01.png,flat,9000\n02.png,tall,\n")
    options = ["--bundle", risk_bundle.path, "--engine", "litert", "--max-risk", 0.1, "--overlay", "--quiet"]
    pages = {}
    for suffix in ("jsonl", "csv", "parquet"):
        out = tmp_path / suffix / f"p.{suffix}"
        assert cli.call(["predict", *map(str, [mixed, "--out", out, *options])]) == 1
        assert cli.call(["report", str(out), "--labels", str(labels)]) == 0
        pages[suffix] = read_data(out.with_suffix(".html"))
    items = pages["jsonl"]["items"]
    assert {item["review"] for item in items if not item["error"]} == {True, False}
    assert all(item["review"] for item in items if item["error"])
    good = [item for item in items if not item["error"]]
    assert all(item["heads"]["ink"]["maps"].keys() >= {"mean", "overlay"} for item in good)
    named = {Path(item["file"]).name: item["heads"] for item in good}
    assert [named[name]["slant"].get("wrong") for name in ("01.png", "02.png", "03.png")] == [True, None, None]
    assert pages["csv"] == pages["jsonl"]
    # Parquet cannot hold a name that is no UTF-8, so it has no thumbnail.
    odd = [item for item in pages["parquet"]["items"] if "xff" in item["file"]]
    assert len(odd) == 1
    for other, item in zip(pages["parquet"]["items"], items, strict=True):
        if other is not odd[0]:
            assert other == item


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
    assert "onerror=alert(1)" in read_data(tmp_path / "p.html")["items"][0]["file"]


@pytest.mark.parametrize("content", ["", "{}\n", "[1]\n", '{"file": 3, "heads": {}}\n', "nonsense\n"])
def test_what_is_no_predictions_is_refused(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.jsonl").write_text(content)
    (tmp_path / "p.csv").write_text(content)
    (tmp_path / "p.parquet").write_text(content)
    for name in ("p.jsonl", "p.csv", "p.parquet", "p.xlsx", "none.csv"):
        assert cli.call(["report", str(tmp_path / name)]) == 2
        error = capsys.readouterr().err
        assert name in error
        assert error.count("\n") == 1


CARDS = "[...document.querySelectorAll('.card')]"


@pytest.mark.stress
def test_a_person_can_use_it_in_chromium(predictions: Path, tmp_path: Path) -> None:
    if chromium.find_browser() is None:
        pytest.skip("no Chromium here")
    rows = [json.loads(line) for line in predictions.read_text().splitlines()]
    labels = tmp_path / "labels.csv"
    names = [Path(row["file"]).name for row in rows]
    labels.write_text("file_name,shape\n" + "".join(f"{name},flat\n" for name in names))
    assert cli.call(["report", str(predictions), "--labels", str(labels)]) == 0
    good = [row for row in rows if row["status"] == "ok"]
    order = sorted(good, key=lambda row: -row["heads"]["shape"]["epistemic"])
    wrong = [row for row in good if row["heads"]["shape"]["label"] != "flat"]
    with chromium.Page(tmp_path / "profile") as page:
        page.open(predictions.with_suffix(".html"))
        assert page.run("document.getElementById('count').textContent") == "21 of 21"
        share = 100 * (20 - len(wrong)) / 20
        assert page.run("score.textContent") == f"{20 - len(wrong)} of 20 right ({share:.1f} %)"
        assert page.run("document.querySelectorAll('.truth').length") == len(wrong)
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
def test_review_and_overlays_in_chromium(risk_bundle: Bundle, pictures: Path, tmp_path: Path) -> None:
    if chromium.find_browser() is None:
        pytest.skip("no Chromium here")
    options = ["--bundle", risk_bundle.path, "--engine", "litert", "--max-risk", 0.1, "--overlay", "--quiet"]
    assert cli.call(["predict", *map(str, [pictures, "--out", tmp_path / "p.csv", *options])]) == 0
    assert cli.call(["report", str(tmp_path / "p.csv")]) == 0
    flagged = sum(item["review"] for item in read_data(tmp_path / "p.html")["items"])
    with chromium.Page(tmp_path / "profile") as page:
        page.open(tmp_path / "p.html")
        assert page.run("document.querySelectorAll('.card.review').length") == flagged
        page.run("show.value = 'review', show.onchange()")
        assert page.run("document.getElementById('count').textContent") == f"{flagged} of 20"
        page.run("overlay.value = 'ink.overlay', overlay.onchange()")
        assert page.run("document.querySelectorAll('.card .stack img').length") == flagged
        page.click(".card")
        assert page.run("document.querySelector('#detail td').textContent") == "yes"


@pytest.mark.stress
def test_ten_thousand_rows_keep_the_page_small_and_quick(predictions: Path, tmp_path: Path) -> None:
    if chromium.find_browser() is None:
        pytest.skip("no Chromium here")
    lines = predictions.read_text().splitlines()[:20]
    (tmp_path / "many.jsonl").write_text("\n".join(lines * 500) + "\n")
    assert cli.call(["report", str(tmp_path / "many.jsonl")]) == 0
    with chromium.Page(tmp_path / "profile") as page:
        page.open(tmp_path / "many.html")
        assert page.run("document.getElementById('count').textContent") == "10000 of 10000"
        assert page.run(f"{CARDS}.length") < 200
        # A filter and a scroll step each stay below a tenth of a second, which a person does not notice.
        # The least of five: other work on the machine is not the page's.
        for action in ("quantity.onchange()", "search.value = '1', search.oninput()", "grid.scrollTop += 900, draw()"):
            timed = f"(() => {{ const start = performance.now(); {action}; return performance.now() - start; }})()"
            assert min(page.run(timed) for _ in range(5)) < 100, action
        page.run("search.value = '', search.oninput()")
        page.run("grid.scrollTop = grid.scrollHeight, grid.onscroll()")
        assert 0 < page.run(f"{CARDS}.length") < 200
