"""The page of docs/web in a real browser: its numbers are those of `probrt predict`, its faults are lines."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import runpy
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import chromium
import numpy as np
import pytest
from cases import BY_NAME, DIGIT, FEATURE_HEADS, INK, TISSUE, built
from exported_cases import load_case, make_images
from PIL import Image
from shapes import GOLDEN

from probrt.exporter.export import export
from probrt.exporter.plan import ExportRequest
from probrt.runtime import cli
from probrt.trainer import backbones, heads, store

TOP = Path(__file__).parent.parent
BUILD = runpy.run_path(str(TOP / "docs" / "build_web.py"))
TOLERANCE = 1e-4
# How a fault looks in a page that stays usable: one line, no name of an error class.
ONE_LINE = re.compile(r"(?!the page failed)[^\n]{10,300}")


def test_the_page_names_no_other_host() -> None:
    for path in (TOP / "docs" / "web").iterdir():
        assert "//" not in re.sub(r"^\s*//.*|^(.*;|.*\{) // .*", r"\1", path.read_text(), flags=re.MULTILINE), path


def test_the_page_imports_files_that_exist() -> None:
    page = TOP / "docs" / "web"
    imported = {name for path in page.glob("*.js") for name in re.findall(r'from "\./([\w.]+)"', path.read_text())}
    assert imported | {"page.js"} == {path.name for path in page.glob("*.js")}


@dataclass(frozen=True)
class Site:
    """The page with some bundles beside it, on a server of this machine."""

    folder: Path
    address: str


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Python's plain file server, as anybody would use it."""
    if chromium.find_browser() is None or shutil.which("npm") is None:
        pytest.skip("no Chromium or no npm here")
    folder = tmp_path_factory.mktemp("web")
    BUILD["build_page"](folder)
    shutil.copytree(GOLDEN / "shapes" / "1", folder / "shapes" / "1")
    for name in ("layers3d", "layers1d"):
        shutil.copytree(load_case(BY_NAME[name]).bundle.path, folder / name / "1")
    model = Path(load_case(BY_NAME["digits"]).bundle.path).parents[2] / "model"
    export(model, folder, ExportRequest(draws=16, formats=("onnx",)))
    many = [*FEATURE_HEADS, TISSUE, INK, heads.Normal(name="depth", per_position=True)]
    pictures = {"colour": "rgb", "range": (0.0, 255.0)}
    case = built("many", [16, 12, 3], [DIGIT, *many], backbones.ConvStack(widths=(4, 6)), **pictures)
    model = tmp_path_factory.mktemp("models") / "many"
    store.save_model(case.model(), model, images=make_images(case.model())[0], targets={}, provenance={})
    export(model, folder, ExportRequest(draws=16, formats=("onnx",)))
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Site(folder, f"http://127.0.0.1:{server.server_port}/index.html")
    server.shutdown()
    server.server_close()


@pytest.fixture
def page(tmp_path: Path, site: Site) -> Iterator[chromium.Page]:
    with chromium.Page(tmp_path / "profile") as opened:
        yield opened
        assert {url.split("/")[2] for url in opened.requests if url.startswith("http")} <= {site.address.split("/")[2]}


def wait(page: chromium.Page, action: Callable[[], object]) -> str:
    """Does something that the page works on; returns its line once it has finished."""
    page.run("if (document.getElementById('status')) document.getElementById('status').textContent = '…'")
    action()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        text = str(page.run("document.getElementById('status').textContent"))
        if text != "…":
            return text
        time.sleep(0.02)
    raise AssertionError("the page gave no answer")


def open_bundle(page: chromium.Page, site: Site, address: str) -> str:
    """Opens the page with a bundle; returns its line."""
    return wait(page, lambda: page.open(f"{site.address}?bundle={address}"))


def choose_draws(page: chromium.Page, place: int) -> str:
    """Chooses a number of draws by its place in the list; returns the page's line."""
    return wait(page, lambda: page.run(f"draws.value = {place}, draws.dispatchEvent(new Event('change'))"))


def is_fault(page: chromium.Page) -> bool:
    return bool(page.run("document.getElementById('status').classList.contains('fault')"))


def answer_of(page: chromium.Page, picture: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Chooses a picture; returns the page's row, and all quantities of all heads as lists."""
    text = wait(page, lambda: page.choose("#file", picture))
    assert "answered in" in text, f"{picture.name}: {text}"
    maps = page.run(
        "Object.fromEntries(Object.entries(probrt.heads).map(([head, parts]) => [head,"
        " Object.fromEntries(Object.entries(parts).map(([name, values]) => [name, Array.from(values)]))]))"
    )
    return json.loads(page.run("document.getElementById('row').textContent")), maps


def predict(bundle: Path, pictures: Path, out: Path, *words: str) -> dict[str, dict[str, Any]]:
    """The rows of `probrt predict` by the name of the picture."""
    options = ["--bundle", bundle, "--engine", "onnxruntime", "--maps", "npy", "--out", out, "--quiet", *words]
    assert cli.call(["predict", str(pictures), *map(str, options)]) == 0, out.read_text()
    return {Path(row["file"]).name: row for row in map(json.loads, out.read_text().splitlines())}


def largest_difference(page: Any, row: Any) -> float:
    """The largest difference of two nested values, relative beyond 1; everything but numbers must be equal."""
    if isinstance(row, dict):
        assert page.keys() == row.keys()
        return max((largest_difference(page[key], row[key]) for key in row), default=0.0)
    if isinstance(row, list):
        assert len(page) == len(row)
        return max((largest_difference(*pair) for pair in zip(page, row, strict=True)), default=0.0)
    if isinstance(row, float | int) and not isinstance(row, bool):
        return abs(page - row) / max(1.0, abs(row))
    assert page == row
    return 0.0


def compare(page: chromium.Page, rows: dict[str, dict[str, Any]], folder: Path, *maps_of: str) -> tuple[float, int]:
    """The largest difference between the page's answers and rows, and how many numbers of maps were compared.

    maps_of: the heads per position.
    """
    largest, count = 0.0, 0
    for name, row in rows.items():
        ours, maps = answer_of(page, folder / name)
        expected = {"draws": row["draws"], "novelty": row.get("novelty"), "heads": dict(row["heads"])}
        for head in maps_of:
            paths = expected["heads"].pop(head)
            assert maps[head].keys() == paths.keys()
            for quantity, path in paths.items():
                values = np.load(path).ravel()
                count += values.size
                differences = np.abs(values - maps[head][quantity]) / np.maximum(1.0, np.abs(values))
                largest = max(largest, float(differences.max()))
        largest = max(largest, largest_difference(ours, expected))
    return largest, count


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of other sizes, colours and formats, as files hold them."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(3)

    def smooth(*shape: int) -> Image.Image:
        small = rng.integers(0, 256, (5, 4, *shape[2:]), dtype=np.uint8)
        return Image.fromarray(small).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)

    Image.fromarray(rng.integers(0, 256, (12, 12), dtype=np.uint8)).save(folder / "exact.png")
    Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).save(folder / "exact16.png")
    Image.fromarray(rng.integers(0, 256, (31, 7), dtype=np.uint8)).save(folder / "grey.png")
    Image.fromarray(rng.integers(0, 256, (40, 53, 3), dtype=np.uint8)).save(folder / "rgb.png")
    Image.fromarray(rng.integers(0, 256, (9, 300, 3), dtype=np.uint8)).quantize(20).save(folder / "palette.png")
    Image.fromarray(rng.integers(0, 2, (20, 20), dtype=np.uint8) * 255).convert("1").save(folder / "bits.png")
    smooth(64, 48, 3).save(folder / "photo.jpg", quality=90)
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter to the right
    smooth(33, 65, 3).save(folder / "turned.jpg", exif=turned)
    smooth(20, 30, 3).save(folder / "lossless.webp", lossless=True)
    smooth(20, 30, 3).save(folder / "lossy.webp")
    smooth(20, 30, 3).save(folder / "plain.bmp")
    smooth(20, 30, 4).save(folder / "transparent.png")
    return folder


@pytest.mark.stress
def test_the_page_answers_as_predict_does(
    site: Site, page: chromium.Page, photos: Path, tmp_path: Path, measured: Callable[[str, str], None]
) -> None:
    largest, numbers, answers = 0.0, 0, 0
    for name, draws in (("shapes", (8, 4)), ("digits", (16, 8))):
        assert "draw or choose a picture" in open_bundle(page, site, f"{name}/1")
        shown = page.run("[...document.getElementById('draws').options].map(o => o.text)")
        assert shown == [str(min(draws)), str(max(draws)), "posterior mean"]
        for count in draws:
            choose_draws(page, shown.index(str(count)))
            rows = predict(site.folder / name / "1", photos, tmp_path / f"{name}{count}.jsonl", "--samples", str(count))
            difference, compared = compare(page, rows, photos, "ink")
            largest, numbers, answers = max(largest, difference), numbers + compared, answers + len(rows)
        choose_draws(page, 2)
        rows = predict(site.folder / name / "1", photos, tmp_path / f"{name}.jsonl", "--variant", "mean")
        difference, compared = compare(page, rows, photos, "ink")
        largest, numbers, answers = max(largest, difference), numbers + compared, answers + len(rows)
    assert page.run("document.querySelectorAll('#maps figure').length") == 4
    measured(
        "the page in Chromium against probrt predict: pictures of many kinds, 4 to 16 draws and the posterior mean",
        f"{answers} rows and {numbers} numbers of maps equal to {largest:.1g}",
    )
    assert answers == 72
    assert largest < TOLERANCE


@pytest.mark.stress
def test_heads_of_all_kinds_are_answered(
    site: Site, page: chromium.Page, tmp_path: Path, measured: Callable[[str, str], None]
) -> None:
    """A model of coloured pictures that does not resize, with every likelihood and three heads per position."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(4)
    for name in ("a.png", "b.jpg", "c.webp"):
        Image.fromarray(rng.integers(0, 256, (16, 12, 3), dtype=np.uint8)).save(folder / name)
    open_bundle(page, site, "many/1")
    rows = predict(site.folder / "many" / "1", folder, tmp_path / "p.jsonl", "--samples", "16")
    choose_draws(page, 1)
    largest, numbers = compare(page, rows, folder, "tissue", "ink", "depth")
    assert page.run("document.querySelectorAll('#maps figure').length") == 1 + 2 + 3 + 2
    assert page.run("document.querySelectorAll('#heads tr').length") == 1 + len(FEATURE_HEADS)
    measured(
        f"the page in Chromium with {len(FEATURE_HEADS) + 4} heads of all likelihoods",
        f"{len(rows)} rows and {numbers} numbers of maps equal to {largest:.1g}",
    )
    assert largest < TOLERANCE


@pytest.mark.stress
def test_pictures_are_resized_to_the_bytes_of_pillow(
    site: Site, page: chromium.Page, measured: Callable[[str, str], None]
) -> None:
    page.open(site.address)
    rng = np.random.default_rng(0)
    count = 0
    for _ in range(60):
        height, width, new_height, new_width = (int(side) for side in rng.integers(1, 90, 4))
        channels = int(rng.choice([1, 3]))
        pixels = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
        image = Image.fromarray(pixels.squeeze(-1) if channels == 1 else pixels)
        expected = np.asarray(image.resize((new_width, new_height), Image.Resampling.BILINEAR)).ravel().tolist()
        sides = f"width: {width}, height: {height}, channels: {channels}"
        picture = f"{{values: Uint8Array.from({pixels.ravel().tolist()}), {sides}}}"
        call = f"import('./resize.js').then(m => Array.from(m.resize({picture}, {new_width}, {new_height}).values))"
        assert page.run(call) == expected
        count += 1
    measured("the page's resizing against Pillow's", f"{count} pictures of random sizes, every byte equal")


@pytest.mark.stress
def test_a_drawing_a_drop_and_a_folder_are_answered(site: Site, page: chromium.Page, photos: Path) -> None:
    assert wait(page, lambda: page.open(site.address)) == "choose a bundle"
    assert "digits 1" in wait(page, lambda: page.choose("#folder", site.folder / "digits"))
    assert "answered in" in wait(page, lambda: page.draw("#pad", [(0.5, 0.2), (0.5, 0.5), (0.4, 0.8)]))
    drawn = page.run("probrt.row.heads.digit.probability")
    assert page.run("document.getElementById('pad').width") == 16
    assert "answered in" in wait(page, lambda: page.drop(photos / "exact16.png"))
    assert page.run("probrt.row.heads.digit.probability") != drawn
    text = str(page.run("document.getElementById('novelty').textContent"))
    assert ("Unknown" in text) == page.run("probrt.row.novelty.unknown")


def damage(site: Site, name: str, change: Callable[[Path, dict[str, Any]], None]) -> str:
    """A copy of the bundle shapes/1 with one change of its files or manifest; returns its address on the server."""
    folder = site.folder / "damaged" / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(GOLDEN / "shapes" / "1", folder)
    manifest = json.loads((folder / "probrt.json").read_text())
    change(folder, manifest)
    if (folder / "probrt.json").exists():
        (folder / "probrt.json").write_text(json.dumps(manifest))
    return f"damaged/{name}"


def put_file(folder: Path, manifest: dict[str, Any], content: bytes) -> None:
    """Replaces draws-00.onnx by other bytes that the manifest lists."""
    (folder / "draws-00.onnx").write_bytes(content)
    record = next(file for file in manifest["files"] if file["path"] == "draws-00.onnx")
    record |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@pytest.mark.stress
def test_bad_input_is_a_line_and_the_page_goes_on(
    site: Site, page: chromium.Page, photos: Path, tmp_path: Path, measured: Callable[[str, str], None]
) -> None:
    mean = (GOLDEN / "shapes" / "1" / "mean.onnx").read_bytes()
    bundles = {
        "nowhere": "the server answers 404",
        "layers3d/1": "arrays of shape",
        "layers1d/1": "arrays of shape",
        damage(site, "missing", lambda folder, m: (folder / "draws-00.onnx").unlink()): "draws-00.onnx",
        damage(site, "flipped", lambda folder, m: (folder / "draws-00.onnx").write_bytes(mean)): "not the bytes",
        damage(site, "no-graph", lambda folder, m: put_file(folder, m, b"no graph")): "no graph",
        damage(site, "foreign", lambda folder, m: put_file(folder, m, mean)): "no output",
        damage(site, "no-onnx", lambda folder, m: m["files"].clear()): "--formats onnx",
        damage(site, "newer", lambda folder, m: m.update(format=2)): "format 2",
        damage(site, "no-heads", lambda folder, m: m.pop("heads")): "no heads",
        damage(site, "strict", lambda folder, m: m["input"].update(resize="none")): "does not resize",
    }
    text = tmp_path / "text.png"
    text.write_text("no picture")
    deep = tmp_path / "deep.png"
    Image.fromarray(np.full((12, 12), 40000, np.uint16)).save(deep)
    cut = tmp_path / "cut.png"
    cut.write_bytes((photos / "rgb.png").read_bytes()[:2000])
    half = tmp_path / "half.jpg"
    half.write_bytes((photos / "photo.jpg").read_bytes()[:600])
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    pictures = {text: "no picture", deep: "16-bit", cut: "no picture", half: "no picture", empty: "no picture"}

    for address, expected in bundles.items():
        line = open_bundle(page, site, address)
        if not is_fault(page):  # only a picture brings it to light
            line = wait(page, lambda: page.choose("#file", photos / "rgb.png"))
        assert is_fault(page), f"{address}: {line}"
        assert ONE_LINE.fullmatch(line), f"{address}: {line}"
        assert expected in line
        good = "address.value = 'shapes/1', document.forms[0].requestSubmit()"
        assert wait(page, lambda: page.run(good)).startswith("shapes 1"), address  # noqa: B023
    open_bundle(page, site, "shapes/1")
    for picture, expected in pictures.items():
        line = wait(page, lambda: page.choose("#file", picture))  # noqa: B023
        assert is_fault(page), f"{picture.name}: {line}"
        assert ONE_LINE.fullmatch(line)
        assert expected in line
        assert page.run("document.getElementById('answer').hidden") is True
    answer_of(page, photos / "rgb.png")
    assert "no probrt.json" in wait(page, lambda: page.choose("#folder", photos))
    measured("bad bundles and pictures in the page", f"{len(bundles) + len(pictures) + 1} kinds, one line each")
