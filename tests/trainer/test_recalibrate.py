"""`probrt calibrate MODEL DATA`: a model directory is calibrated anew on a folder of labelled images."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from probrt.trainer import store
from probrt.trainer.card import renew_sections
from probrt.trainer.variational.handlers import MeanHandler, use_handler

pytestmark = pytest.mark.slow

MODEL = Path(__file__).parent.parent / "golden" / "format-1" / "model"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    shutil.copytree(MODEL, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def data(model: Path, tmp_path: Path) -> Path:
    """110 images of noise, labelled by chance, without masks."""
    folder = tmp_path / "data"
    folder.mkdir()
    labels = next(head.labels for head in store.load_model(model)[0].heads if head.name == "digit")
    rng = np.random.default_rng(0)
    lines = ["file_name,digit,slant,ink"]
    for index in range(110):
        Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).save(folder / f"{index}.png")
        lines.append(f"{index}.png,{rng.choice(labels)},{rng.normal():.3f},")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_model_is_calibrated_on_other_images(
    model: Path, data: Path, called: Callable[..., Any], tmp_path: Path
) -> None:
    before, _ = store.load_model(model)
    files = {path.name: path.read_bytes() for path in model.iterdir()}
    done = called("calibrate", model, data, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "calibrated on 110 images" in done.out
    after, stored = store.load_model(model)
    assert {path.name for path in model.iterdir() if path.read_bytes() != files.get(path.name)} == {
        "card.md",
        "model.json",
        "novelty.npz",
    }
    card = (model / "card.md").read_text()
    assert card.startswith("# digits\n\n## Calibration\n\n- digit: temperature")
    assert f"on 110 examples of data with the digest `{stored.provenance['calibration']['data_digest']}`" in card
    assert f"## Novelty\n\n- {stored.provenance['novelty']}\n" in card
    assert stored.provenance["calibration"]["examples"] == 110
    records = {record.head: record for record in after.calibration}
    assert {record.method for record in records["digit"].conformal} == {"lac", "aps", "raps"}
    assert records["digit"].temperature > {record.head: record for record in before.calibration}["digit"].temperature
    assert records["ink"].conformal == []


def test_novelty_ranks_new_images_among_those_it_was_calibrated_on(
    model: Path, tmp_path: Path, called: Callable[..., Any]
) -> None:
    """The model of before has no novelty: half of the images are learned, the other half ranked. A second calibration
    keeps what was learned. At level 0.1 a binomial share of fresh images is unknown: four standard errors of 100 fresh
    and of 60 ranked ones."""
    rng = np.random.default_rng(1)

    def write(folder: Path, count: int, low: int) -> np.ndarray:
        folder.mkdir()
        images = [low + rng.integers(0, 100) // 2 + rng.integers(0, 60, (16, 16)) for _ in range(count)]
        for index, image in enumerate(images):
            Image.fromarray(image.astype(np.uint8)).save(folder / f"{index}.png")
        return np.stack(images)[..., None].astype(np.float32)

    assert store.load_model(model)[0].novelty is None
    write(tmp_path / "first", 120, 40)
    done = called("calibrate", model, tmp_path / "first", "--unlabelled", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "with 60 training images; p-values from 60 validation images" in done.out
    first = store.load_model(model)[0].novelty
    write(tmp_path / "second", 60, 100)
    assert called("calibrate", model, tmp_path / "second", "--unlabelled", cwd=tmp_path).code == 0
    renewed, stored = store.load_model(model)
    second = renewed.novelty
    assert first is not None
    assert second is not None
    assert stored.calibration == list(renewed.calibration)
    np.testing.assert_array_equal(first.distances[0].prototypes, second.distances[0].prototypes)
    linear = np.where(second.scores > 1, np.exp(second.scores - 1), second.scores)  # a logarithm above 1
    assert float(np.mean(linear)) == pytest.approx(0.0, abs=1e-5)
    assert float(np.std(linear)) == pytest.approx(1.0, abs=1e-5)
    fresh = write(tmp_path / "fresh", 100, 100)
    with use_handler(MeanHandler()):
        p_values = renewed.moments_and_novelty(fresh)[1]["p_value"].numpy()
    assert np.mean(p_values <= 0.1) <= 0.1 + 4 * np.sqrt(0.1 * 0.9 * (1 / 60 + 1 / 100))
    assert np.mean(p_values) == pytest.approx(0.5, abs=4 * np.sqrt((1 / 60 + 1 / 100) / 12))


def test_too_few_images_give_no_novelty(model: Path, tmp_path: Path, called: Callable[..., Any]) -> None:
    (tmp_path / "few").mkdir()
    Image.new("L", (16, 16)).save(tmp_path / "few" / "0.png")
    done = called("calibrate", model, tmp_path / "few", "--unlabelled", cwd=tmp_path)
    assert (done.code, "at least 50 are needed" in done.err, done.err.count("\n")) == (2, True, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "no such folder of labelled images"),
        (
            lambda folder: (folder / "metadata.csv").write_text("file_name,digit,slant,ink\n0.png,,,\n"),
            "no example has a target of digit, slant, ink",
        ),
        (lambda folder: (folder / "metadata.csv").write_text("file_name,digit\n0.png,3\n"), "slant"),
    ],
    ids=["absent", "unlabelled", "columns"],
)
def test_a_folder_without_targets_is_refused(
    model: Path,
    data: Path,
    called: Callable[..., Any],
    tmp_path: Path,
    change: Callable[[Path], object],
    message: str,
) -> None:
    content = (model / "model.json").read_bytes()
    change(data)
    done = called("calibrate", model, data, cwd=tmp_path)
    assert (done.code, message in done.err, done.err.count("\n")) == (2, True, 1), done.err
    assert (model / "model.json").read_bytes() == content


def test_only_the_renewed_sections_of_a_card_change() -> None:
    card = "# digits\n\n## Data\n\n- mine\n\n## Calibration\n\n- old\n- older\n\n## Novelty\n\n- none\n"
    renewed = renew_sections(card, {"Calibration": ["- new"]})
    assert renewed == "# digits\n\n## Data\n\n- mine\n\n## Calibration\n\n- new\n\n## Novelty\n\n- none\n"
    assert renew_sections(renewed, {"Calibration": ["- new"]}) == renewed
    assert renew_sections(renewed, {"Novelty": ["- some"]}) == renewed.replace("- none", "- some")
    assert renew_sections("# digits\n", {"Novelty": ["- some"]}) == "# digits\n\n## Novelty\n\n- some\n"
