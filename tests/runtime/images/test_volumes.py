"""A NIfTI volume gives NIfTI maps on the same voxel grid; `.npy` volumes; maps of heads per voxel."""

import base64
import gzip
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from probrt.runtime import cli
from probrt.runtime.bundle import manifest as m
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import HeadRecord
from probrt.runtime.images.volumes import decode_volume, encode_volume

# One worker for all: the fixture of the module is made once.
pytestmark = pytest.mark.xdist_group("volumes")

SIDES = (4, 5, 6)  # depth, height, width
# Left-right flipped, axes permuted, oblique, voxels of 2, 1.5 and 3 mm.
TURNED = np.array([[0.1, 0.0, 3.0, -20.0], [-2.0, 0.2, 0.1, 30.0], [0.1, 1.5, -0.2, 5.0], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def brains(tmp_path_factory: pytest.TempPathFactory, rewrite: Callable[..., Bundle]) -> Bundle:
    """A posterior mean of volumes [4, 5, 6, 1]: heads per voxel of three classes, of two flags and of a real value."""
    import tensorflow as tf

    def mean(images: Any) -> dict[str, Any]:
        classes = tf.nn.softmax(tf.concat([images, 2.0 - images, 0.5 * images], -1))
        flags = tf.sigmoid(tf.concat([images, -images], -1))
        return {
            "tissue.mean": classes,
            "tissue.aleatoric": -tf.reduce_sum(classes * tf.math.log(classes), -1),
            "spot.mean": flags,
            "spot.aleatoric": flags * (1.0 - flags),
            "depth.mean": 2.0 * images,
            "depth.aleatoric": tf.ones_like(images),
            "depth.cubed": images**3,
        }

    folder = tmp_path_factory.mktemp("brains") / "1"
    folder.mkdir()
    traced = tf.function(mean, input_signature=[tf.TensorSpec([None, *SIDES, 1], tf.float32, "images")])
    module = tf.Module()
    module.mean = traced
    tf.saved_model.save(module, str(folder.parent / "scratch"), signatures={"serving_default": traced})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder.parent / "scratch"))
    (folder / "mean.tflite").write_bytes(converter.convert())
    full: list[int | None] = [*SIDES, 1]
    heads = [
        HeadRecord(name="tissue", likelihood="categorical", kind="class", combine="entropy", per_position=True,
               labels=list("abc"), outputs={"mean": [*SIDES, 3], "aleatoric": [*SIDES]}),
        HeadRecord(name="spot", likelihood="bernoulli", kind="binary", combine="entropy", per_position=True,
               labels=list("de"), outputs={"mean": [*SIDES, 2], "aleatoric": [*SIDES, 2]}),
        HeadRecord(name="depth", likelihood="normal", kind="real", combine="variance", per_position=True,
               labels=["depth"], outputs={"mean": full, "aleatoric": full, "cubed": full}),
    ]  # fmt: skip
    input = m.Input(shape=full, colour="none", resize="none", range=(-10, 10))
    return rewrite(folder, input=input, heads=heads, posterior=None, calibration=[])


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A turned and compressed NIfTI volume, and an array."""
    rng = np.random.default_rng(2)
    stored = rng.normal(size=(5, 4, 6)).astype(np.float32)  # axes back to front, bottom to top, right to left
    nibabel.save(nibabel.Nifti1Image(stored, TURNED), tmp_path / "a.nii.gz")
    np.save(tmp_path / "b.npy", rng.normal(size=(*SIDES, 1)).astype(np.float32))
    return tmp_path


def predict(bundle: Bundle, scans: Path, *words: object) -> list[dict[str, Any]]:
    fixed = ["predict", scans, "--bundle", bundle.path, "--out", scans / "p.jsonl", "--engine", "litert", "--quiet"]
    assert cli.call([str(word) for word in (*fixed, *words)]) == 0
    return [json.loads(line) for line in (scans / "p.jsonl").read_text().splitlines()]


def test_nifti_in_gives_maps_on_its_own_voxels(brains: Bundle, scans: Path) -> None:
    volume, array = predict(brains, scans)
    stored = nibabel.load(scans / "a.nii.gz").get_fdata()
    maps = {name: nibabel.load(path) for name, path in volume["heads"]["depth"].items()}
    for image in maps.values():
        np.testing.assert_allclose(image.affine, TURNED, rtol=1e-6)
        assert image.shape == stored.shape
    np.testing.assert_allclose(maps["mean"].get_fdata(), 2 * stored, rtol=1e-5)
    np.testing.assert_allclose(maps["cubed"].get_fdata(), stored**3, rtol=1e-5)
    classes = nibabel.load(volume["heads"]["tissue"]["mean"])
    assert classes.get_data_dtype() == np.uint8
    expected = np.stack([stored, 2 - stored, 0.5 * stored]).argmax(0)
    np.testing.assert_array_equal(classes.get_fdata(), expected)
    spots = nibabel.load(volume["heads"]["spot"]["mean"]).get_fdata()
    np.testing.assert_allclose(spots[..., 1], 1 / (1 + np.exp(stored)), rtol=1e-5)
    assert array["heads"]["depth"]["mean"].endswith(".npy")
    np.testing.assert_allclose(np.load(array["heads"]["depth"]["mean"]), 2 * np.load(scans / "b.npy"), rtol=1e-6)


def test_maps_by_name_and_in_flat_columns(brains: Bundle, scans: Path) -> None:
    assert all(
        path.endswith(".npy")
        for row in predict(brains, scans, "--maps", "npy")
        for path in row["heads"]["spot"].values()
    )
    _, array = predict(brains, scans, "--maps", "nifti", "--overwrite")
    depth = nibabel.load(array["heads"]["depth"]["mean"])
    np.testing.assert_array_equal(depth.affine, np.eye(4))
    np.testing.assert_allclose(decode_volume(depth.to_bytes()), 2 * np.load(scans / "b.npy"), rtol=1e-6)
    words = ["predict", scans / "a.nii.gz", "--bundle", brains.path, "--out", scans / "p.parquet", "--quiet"]
    assert cli.call([str(word) for word in words]) == 0
    import pyarrow.parquet as pq

    (row,) = pq.read_table(scans / "p.parquet").to_pylist()
    assert row["spot.mean"].endswith("spot.mean.nii.gz")
    assert row["depth.cubed"].endswith("depth.cubed.nii.gz")


def test_the_report_shows_the_middle_slices(brains: Bundle, scans: Path) -> None:
    predict(brains, scans)
    assert cli.call(["report", str(scans / "p.jsonl")]) == 0
    data = re.search(r'id="data">(.*?)</script>', (scans / "p.html").read_text(), re.DOTALL)
    assert data is not None
    for item, name in zip(json.loads(data.group(1))["items"], ("a.nii.gz", "b.npy"), strict=True):
        assert item["heads"]["depth"]["maps"].keys() == {"mean", "aleatoric", "cubed"}
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(item["image"].partition(",")[2]))).convert("L"))
        voxels = decode_volume((scans / name).read_bytes()) if name == "a.nii.gz" else np.load(scans / name)
        expected = voxels[SIDES[0] // 2, ..., 0]
        assert picture.shape == expected.shape
        # WebP at quality 70 changes values a little, but not which voxels are bright and which are dark.
        assert np.corrcoef(picture.ravel(), expected.ravel())[0, 1] > 0.9


def test_a_coarser_map_covers_the_same_millimetres() -> None:
    sides = (4, 6, 10)
    full, coarse = (
        nibabel.Nifti1Image.from_bytes(gzip.decompress(encode_volume(np.zeros(shape, np.float32), TURNED, sides)))
        for shape in (sides, (2, 3, 5))
    )
    np.testing.assert_allclose(full.affine, TURNED, rtol=1e-6)
    # The corners of the grid lie half a voxel outside the centres of its outer voxels, and must not move.
    corners = [
        image.affine @ np.array([[-0.5] * 3 + [1], [*(np.array(image.shape) - 0.5), 1]]).T for image in (full, coarse)
    ]
    np.testing.assert_allclose(corners[0], corners[1], atol=1e-4)


def test_nifti_maps_of_a_bundle_without_volumes_are_refused(
    bundle: Bundle, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(pictures), "--bundle", str(bundle.path), "--out", str(tmp_path / "p.jsonl")]
    assert cli.call([*words, "--maps", "nifti"]) == 2
    assert "no head per voxel" in capsys.readouterr().err
    assert cli.call([*words, "--maps", "tiff"]) == 2
    assert "auto, png, npy, nifti, none" in capsys.readouterr().err
