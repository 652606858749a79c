"""`probrt calibrate BUNDLE PREDICTIONS LABELS`: a new version whose sets and intervals hold on the labelled rows."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from shapes import SIDE

from probrt.runtime import cli
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.calibration.thresholds import COVERAGES

COUNT = 150


@pytest.fixture(scope="module")
def labelled(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the bundle and images of random pixels."""
    folder = tmp_path_factory.mktemp("labelled")
    shutil.copytree(bundle.path.parent, folder / "shapes")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for index in range(COUNT):
        pixels = rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{index:03d}.png")
    return folder


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def rows(labelled: Path, bundle: Bundle) -> Path:
    """Rows of the images, and beside them labels.csv: classes drawn from the row's probabilities, every tenth empty,
    and slants with twice the row's standard deviation."""
    out = labelled / "rows.jsonl"
    words = ["predict", labelled / "images", "--bundle", labelled / "shapes", "--out", out, "--maps", "none", "--quiet"]
    assert cli.call([str(word) for word in [*words, "--engine", "litert"]]) == 0
    labels = list(bundle.manifest.head("shape").labels)
    rows = read_rows(out)
    rng = np.random.default_rng(1)
    with (labelled / "labels.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file_name", "shape", "slant"])
        for index, row in enumerate(rows):
            shape, slant = row["heads"]["shape"], row["heads"]["slant"]
            p = np.array(shape["mean"]) / np.sum(shape["mean"])
            label = "" if index % 10 == 0 else labels[rng.choice(len(p), p=p)]
            writer.writerow([Path(row["file"]).name, label, slant["mean"] + 2 * slant["total"] ** 0.5 * rng.normal()])
    return out


def test_a_new_version_holds_on_the_labelled_rows(
    labelled: Path, rows: Path, called: Callable[..., Any], tmp_path: Path
) -> None:
    shutil.copytree(labelled / "shapes", tmp_path / "shapes")
    done = called("calibrate", tmp_path / "shapes", rows, labelled / "labels.csv", cwd=tmp_path)
    assert done.code == 0, done.err
    assert f"{tmp_path / 'shapes' / '2'}: thresholds and risk curves of {COUNT} labelled rows" in done.out
    assert "unchanged, for rows hold no maps: ink" in done.out
    assert called("verify", tmp_path / "shapes" / "2", cwd=tmp_path).code == 0
    old, new = Bundle.open(tmp_path / "shapes" / "1"), Bundle.open(tmp_path / "shapes")
    assert new.manifest.model.version == 2
    assert [file.sha256 for file in new.manifest.files] == [file.sha256 for file in old.manifest.files]
    records = {record.head: record for record in new.manifest.calibration}
    assert {record.method for record in records["shape"].conformal} == {"lac", "aps", "raps"}
    assert {record.coverage for record in records["slant"].conformal} == set(COVERAGES)
    assert records["shape"].risk
    assert records["shape"].risk[-1].kept == 1.0

    words = ["predict", labelled / "images", "--bundle", tmp_path / "shapes", "--maps", "none", "--quiet"]
    assert called(*words, "--out", tmp_path / "p.jsonl", cwd=tmp_path).code == 0
    truth = {row["file_name"]: row for row in csv.DictReader((labelled / "labels.csv").read_text().splitlines())}
    held: dict[str, list[bool]] = {"shape": [], "slant": []}
    for row in read_rows(tmp_path / "p.jsonl"):
        cells = truth[Path(row["file"]).name]
        if cells["shape"]:
            held["shape"].append(cells["shape"] in row["heads"]["shape"]["set"])
        low, high = row["heads"]["slant"]["interval"]
        held["slant"].append(low <= float(cells["slant"]) <= high)
    # On the very rows that gave the thresholds at least the promised share is inside, by the definition of a quantile.
    assert np.mean(held["shape"]) >= 0.9
    assert 0.9 <= np.mean(held["slant"]) < 0.93
    # The slants are twice as wide as the total variance says: the threshold is near 2 x 1.645; its standard deviation
    # over 150 normal values is 0.2.
    threshold = next(record.threshold for record in records["slant"].conformal if record.coverage == 0.9)
    assert threshold == pytest.approx(3.29, abs=0.8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("file_name", "name"), "needs a column file or file_name"),
        (lambda text: text.replace(".png", ".jpg"), "none of its names (000.jpg) is the end of a good row's file name"),
        (lambda text: text.replace("shape,slant", "kind,lean"), "no label of a pooled head; its columns are shape"),
        (lambda text: text.replace("\n001.png,", "\n001.png,hexagon of "), "'hexagon of "),
        (lambda text: text.split("\n")[0] + "\n001.png,,steep\n", "slant 'steep' is no number"),
        (lambda text: text.split("\n")[0] + "\n001.png,,inf\n", "slant inf, must be finite"),
        (
            lambda text: "\n".join(text.split("\n")[:3]),
            "1 labelled rows of shape are too few for its thresholds at 90%",
        ),
    ],
    ids=["columns", "names", "heads", "class", "word", "infinite", "few"],
)
def test_bad_labels_are_refused(
    labelled: Path,
    rows: Path,
    called: Callable[..., Any],
    tmp_path: Path,
    change: Callable[[str], str],
    message: str,
) -> None:
    (tmp_path / "labels.csv").write_text(change((labelled / "labels.csv").read_text().replace("\r\n", "\n")))
    done = called("calibrate", labelled / "shapes", rows, tmp_path / "labels.csv", cwd=tmp_path)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1
    assert [path.name for path in (labelled / "shapes").iterdir()] == ["1"]


def test_rows_of_another_bundle_or_of_the_mean_are_refused(
    labelled: Path, rows: Path, called: Callable[..., Any], tmp_path: Path
) -> None:
    other = rows.read_text().replace('"shapes/1"', '"shapes/7"')
    (tmp_path / "other.jsonl").write_text(other)
    done = called("calibrate", labelled / "shapes", tmp_path / "other.jsonl", labelled / "labels.csv", cwd=tmp_path)
    assert (done.code, "rows of shapes/7, not of shapes/1" in done.err) == (2, True)
    words = ["predict", labelled / "images", "--bundle", labelled / "shapes", "--variant", "mean", "--maps", "none"]
    assert called(*words, "--out", tmp_path / "mean.jsonl", "--quiet", cwd=tmp_path).code == 0
    done = called("calibrate", labelled / "shapes", tmp_path / "mean.jsonl", labelled / "labels.csv", cwd=tmp_path)
    assert (done.code, "predict with draws, not with the posterior mean" in done.err) == (2, True)
    done = called("calibrate", labelled / "shapes", rows, cwd=tmp_path)
    assert (done.code, "for a bundle give PREDICTIONS and LABELS" in done.err) == (2, True)


def test_a_signed_bundle_needs_the_key_again(
    labelled: Path, rows: Path, called: Callable[..., Any], tmp_path: Path
) -> None:
    shutil.copytree(labelled / "shapes", tmp_path / "shapes")
    (tmp_path / "shapes" / "1" / "probrt.sig").write_text("{}")
    done = called("calibrate", tmp_path / "shapes", rows, labelled / "labels.csv", cwd=tmp_path)
    assert (done.code, "is signed; give the private key with --sign" in done.err) == (2, True)
    assert [path.name for path in (tmp_path / "shapes").iterdir()] == ["1"]
