"""Reading training data: tables, splits, masks, faults; and augmentation that moves everything together."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import ConfigError, DataError
from probrt.trainer import data, heads
from probrt.trainer.config.config import Config
from probrt.trainer.config.settings import Augmentation, DataSettings
from probrt.trainer.data.augment import augment
from probrt.trainer.data.examples import Examples

GREY = Input(shape=[8, 8, 1], colour="grey", resize="bilinear", range=(0.0, 255.0))
KIND = heads.Categorical(name="kind", labels=["a", "b", "c"])


def config(*chosen: heads.Head, input: Input = GREY, seed: int = 0, **settings: object) -> Config:
    return Config(name="t", data=DataSettings(folder="data", **settings), input=input, heads=list(chosen), seed=seed)


def written(root: Path, name: str, rows: list[dict[str, object]]) -> None:
    """The same rows as CSV, JSON lines or Parquet."""
    if name.endswith(".csv"):
        with (root / name).open("w", newline="") as stream:
            table = csv.DictWriter(stream, rows[0])
            table.writeheader()
            table.writerows([{key: "" if value is None else value for key, value in row.items()} for row in rows])
    elif name.endswith(".jsonl"):
        (root / name).write_text("\n".join(json.dumps(row) for row in rows))
    else:
        import pyarrow
        import pyarrow.parquet as parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), root / name)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_every_table_and_every_kind_of_picture_gives_the_same_examples(root: Path, name: str) -> None:
    """8- and 16-bit, grey, RGB and RGBA pictures, `.npy`; targets of a class, a count, a box and two columns."""
    folder = root / "data"
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3
    pictures = {
        "a.png": Image.fromarray(grey),
        "b.bmp": Image.fromarray(grey),
        "c.webp": Image.fromarray(np.repeat(grey[..., None], 3, -1)),
        "d.tif": Image.fromarray(grey.astype(np.uint16) * 257),
        "e.tiff": Image.fromarray(np.dstack([grey] * 3 + [np.full_like(grey, 255)]), "RGBA"),
    }
    for file, picture in pictures.items():
        picture.save(folder / file, **({"lossless": True} if file.endswith("webp") else {}))
    np.save(folder / "f.npy", grey)
    rows = [
        {"file_name": file, "split": "train" if n < 4 else "validation", "kind": "abc"[n % 3], "many": n,
         "where_x_min": 0.1, "where_y_min": 0.2, "where_x_max": 0.5, "where_y_max": 0.9, "u": n / 2,
         "v": None if n % 2 else 1}
        for n, file in enumerate([*pictures, "f.npy"])
    ]  # fmt: skip
    written(folder, name, rows)
    settings = config(
        KIND, heads.Poisson(name="many"), heads.Box(name="where"), heads.Normal(name="uv", labels=["u", "v"])
    )
    read = data.read_dataset(settings, root)
    assert {split: examples.files for split, examples in read.splits.items()} == {
        "train": ("a.png", "b.bmp", "c.webp", "d.tif"), "validation": ("e.tiff", "f.npy"),
    }  # fmt: skip
    for examples in read.splits.values():
        assert examples.images.dtype == np.uint8
        np.testing.assert_array_equal(examples.images, np.stack([grey[..., None]] * len(examples)))
    train = read.splits["train"].targets
    np.testing.assert_array_equal(train["kind"], [0, 1, 2, 0])
    np.testing.assert_array_equal(train["many"], [[0], [1], [2], [3]])
    np.testing.assert_array_equal(train["where"], np.float32([[0.1, 0.2, 0.5, 0.9]] * 4))
    np.testing.assert_array_equal(train["uv"], [[0, 1], [0.5, np.nan], [1, 1], [1.5, np.nan]])
    lines = "\n".join(data.summarise(read, settings.heads))
    for text in ("8 x 8 (6)", "kind, train: a 2, b 1, c 1", "many, validation: many 4 to 5", "v 1 to 1"):
        assert text in lines


def test_masks_are_colour_numbers_arrays_or_brightness_and_follow_the_image_s_size(root: Path) -> None:
    folder = root / "data"
    classes = np.arange(256).reshape(16, 16) // 86
    palette = Image.fromarray(classes.astype(np.uint8), "L").convert("P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255] + [0] * 759)
    palette.putdata(classes.ravel().tolist())
    palette.save(folder / "classes.png")
    Image.fromarray((classes > 0).astype(np.uint8) * 255).save(folder / "ink.png")
    # Already of the model's sides.
    np.save(folder / "height.npy", np.where(classes[::2, ::2] == 2, np.nan, 0.5).astype(np.float32))
    Image.fromarray((classes * 80).astype(np.uint8)).save(folder / "image.png")
    row = {"file_name": "image.png", "part": "classes.png", "ink": "ink.png", "height": "height.npy"}
    rows = [{**row, "split": "train"}, {**row, "file_name": "other.png", "split": "validation", "ink": ""}]
    Image.fromarray((classes * 70).astype(np.uint8)).save(folder / "other.png")
    written(folder, "metadata.csv", rows)
    settings = config(
        heads.Categorical(name="part", labels=["a", "b", "c"], per_position=True),
        heads.Bernoulli(name="ink", per_position=True),
        heads.Normal(name="height", per_position=True),
    )
    read = data.read_dataset(settings, root)
    targets = read.splits["train"].targets
    nearest = classes[1::2, 1::2]  # the middle of two pixels, rounded up
    np.testing.assert_array_equal(targets["part"][0], nearest)
    np.testing.assert_array_equal(targets["ink"][0, ..., 0], nearest > 0)
    known = classes[::2, ::2] != 2
    np.testing.assert_array_equal(np.isfinite(targets["height"][0, ..., 0]), known)
    assert np.isnan(read.splits["validation"].targets["ink"]).all()
    assert read.sides == {(16, 16): 2}


def test_signals_volumes_and_feature_columns(root: Path) -> None:
    import nibabel

    folder, rng = root / "data", np.random.default_rng(0)
    rows = []
    for n in range(4):
        volume = rng.normal(size=(4, 3, 2)).astype(np.float32)
        nibabel.Nifti1Image(volume, np.eye(4)).to_filename(folder / f"{n}.nii.gz")
        nibabel.Nifti1Image((volume > 0).astype(np.float32), np.eye(4)).to_filename(folder / f"{n}.mask.nii.gz")
        np.save(folder / f"{n}.npy", volume.ravel())
        split = "train" if n < 2 else "validation"
        rows.append(
            {"file_name": f"{n}.nii.gz", "inside": f"{n}.mask.nii.gz", "split": split, "x": n, "y": 0.5, "z": n}
        )
    written(folder, "metadata.csv", rows)
    inside = heads.Bernoulli(name="inside", per_position=True)
    volumes = Input(shape=[2, 3, 4, 1], colour="none", resize="none")
    read = data.read_dataset(config(inside, input=volumes), root).splits["train"]
    np.testing.assert_array_equal(read.targets["inside"] > 0.5, read.images > 0)
    features = Input(shape=[2], colour="none", resize="none")
    read = data.read_dataset(config(heads.Normal(name="z"), input=features, features=["x", "y"]), root)
    np.testing.assert_array_equal(read.splits["validation"].images, [[2, 0.5], [3, 0.5]])
    written(folder, "signals.csv", [{**row, "file_name": f"{n}.npy"} for n, row in enumerate(rows)])
    signals = Input(shape=[None, 1], colour="none", resize="none")
    read = data.read_dataset(config(heads.Normal(name="z"), input=signals, table="signals.csv"), root)
    assert read.splits["train"].images.shape == (2, 24, 1)


def test_class_named_folders_with_and_without_splits(root: Path) -> None:
    for path in ("train/a/1.png", "train/b/2.png", "validation/a/3.png", "test/c/4.png", "train/a/notes.txt"):
        (root / "data" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), len(path)).save(root / "data" / path, "PNG")
    read = data.read_dataset(config(KIND), root)
    assert {split: examples.targets["kind"].tolist() for split, examples in read.splits.items()} == {
        "train": [0, 1], "validation": [0], "test": [2],
    }  # fmt: skip
    assert any("no training example of c" in line for line in data.summarise(read, [KIND]))
    with pytest.raises(DataError, match=r"class 'train' is none of a, b, c"):
        data.read_dataset(config(KIND), _moved(root))


def _moved(root: Path) -> Path:
    """The same folder with one more level of folders."""
    (root / "data" / "more").mkdir()
    for name in ("train", "validation", "test"):
        (root / "data" / name).rename(root / "data" / "more" / name)
    (root / "again").mkdir()
    (root / "data" / "more").rename(root / "again" / "data")
    (root / "again" / "data" / "train").rename(root / "again" / "data" / "x")
    (root / "again" / "data" / "x" / "train").mkdir()
    (root / "again" / "data" / "x").rename(root / "again" / "data" / "train")
    Image.new("L", (8, 8)).save(root / "again" / "data" / "train" / "train" / "9.png")
    return root / "again"


def grouped(root: Path, count: int, column: bool) -> None:
    rows = []
    for n in range(count):
        Image.new("L", (8, 8), n).save(root / "data" / f"{n}.png")
        row = {"file_name": f"{n}.png", "kind": "a", "patient": f"p{n // 3}"}
        rows.append(row | ({"split": "train" if n < 7 else "validation"} if column else {}))
    written(root / "data", "metadata.csv", rows)


def patients_of(read: data.Dataset) -> dict[str, set[int]]:
    return {split: {int(name[:-4]) // 3 for name in examples.files} for split, examples in read.splits.items()}


def test_a_seeded_split_keeps_groups_together_and_hits_its_parts(root: Path) -> None:
    grouped(root, 90, column=False)
    patients = {}
    for seed in (0, 1):
        read = data.read_dataset(config(KIND, seed=seed, group="patient", validation=0.2, test=0.1), root)
        assert {split: len(examples) for split, examples in read.splits.items()} == {
            "train": 63,
            "validation": 18,
            "test": 9,
        }
        patients[seed] = patients_of(read)
        assert sum(map(len, patients[seed].values())) == len(set.union(*patients[seed].values())) == 30
    assert patients[0] != patients[1]
    again = data.read_dataset(config(KIND, seed=1, group="patient", validation=0.2, test=0.1), root)
    assert patients_of(again) == patients[1]
    assert "test" not in data.read_dataset(config(KIND, test=0.0), root).splits


def test_all_faults_come_at_once_with_row_and_reason(root: Path) -> None:
    grouped(root, 40, column=True)
    folder = root / "data"
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:40])
    (folder / "5.png").unlink()
    text = (folder / "metadata.csv").read_text().replace("10.png,a", "10.png,z")
    (folder / "metadata.csv").write_text(text)
    with pytest.raises(data.FaultyData) as error:
        data.read_dataset(config(KIND, group="patient"), root)
    assert [line.split(":")[0] for line in error.value.lines] == ["row 5", "row 7", "row 9", "row 12"]
    for expected in (
        "5 faults",
        "row 5: 3.png: not an image",
        "row 7: 5.png: cannot be read: No such file",
        "row 9: patient 'p2' is in validation, and in train in row 8 (and row 10)",
        "kind: class 'z' is none of a, b, c",
    ):
        assert expected in str(error.value)
    (folder / "4.png").write_bytes((folder / "20.png").read_bytes())
    for name in ("3", "5"):
        Image.new("L", (8, 8), int(name)).save(folder / f"{name}.png")
    (folder / "metadata.csv").write_text(text.replace("10.png,z", "10.png,a"))
    read = data.read_dataset(config(KIND), root)
    assert (
        "1 file is byte for byte in two splits, such as 4.png (train) and 20.png (validation); use data.group to keep "
        "copies together"
    ) in read.notes
    none = [f"{n}.jpg,{'train' if n else 'validation'},a" for n in range(99)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,split,kind", *none]))
    with pytest.raises(data.FaultyData) as error:
        data.read_dataset(config(KIND), root)
    assert "99 faults: row 2: 0.jpg: cannot be read" in str(error.value)
    assert "(and rows 3, 4, 5, 6 and 94 more)" in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file_name,kind\n", "has no rows"),
        ("file_name,kind,kind\na,b,c\n", "two columns are named 'kind'"),
        ("file_name,kind\na.png\n", "row 2: another number of cells than the header's 2"),
        ("file_name,kid\na.png,a\n", "no column 'kind'; it has file_name, kid"),
        (b"\xff\xfe\x00", "not a CSV table"),
    ],
)
def test_a_table_that_is_none_is_refused(root: Path, text: str | bytes, message: str) -> None:
    (root / "data" / "metadata.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message):
        data.read_dataset(config(KIND), root)


@pytest.mark.parametrize(
    ("settings", "input", "message"),
    [
        ({"flip": ["depth"]}, GREY, "data.flip: depth: the input has 2 sides"),
        ({"rotate": 5.0}, Input(shape=[9, 1], colour="none", resize="none"), "data.rotate: only for two-dimensional"),
        ({"turn": True}, Input(shape=[8, 9, 1], colour="grey", resize="none"), "data.turn: a quarter turn needs equal"),
        ({"noise": 0.1}, Input(shape=[8, 8, 1], colour="none", resize="none"), "data.noise: is a part of input.range"),
        ({"shift": 1}, Input(shape=[8], colour="none", resize="none"), "data.shift: feature vectors have no positions"),
    ],
)
def test_an_augmentation_that_cannot_be_is_refused(root: Path, settings: dict, input: Input, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        data.read_dataset(config(KIND, input=input, **settings), root)


@pytest.mark.parametrize(
    "settings",
    [
        {"shift": 2}, {"flip": ["horizontal", "vertical"]}, {"turn": True}, {"rotate": 30.0, "zoom": 0.2},
        {"shift": 2, "flip": ["vertical"], "turn": True, "rotate": 20.0, "zoom": 0.1},
    ],
    ids=lambda settings: "+".join(settings),
)  # fmt: skip
def test_masks_and_boxes_move_with_the_image(settings: dict) -> None:
    """A filled box in each image: its masks stay exactly under it, and its box around it.

    Upright changes are exact. A rotated box is the box around the rotated one: never smaller than what is lit, and
    larger by its own corners at most. 1.5 pixels for half a pixel on each side and interpolation.
    """
    import tensorflow as tf

    rng, side = np.random.default_rng(0), 40
    images, boxes = np.zeros((64, side, side, 1), np.float32), np.zeros((64, 4), np.float32)
    for image, box in zip(images, boxes, strict=True):
        left, top = rng.integers(10, 16, 2)
        wide, high = rng.integers(6, 12, 2)
        image[top : top + high, left : left + wide] = 200
        box[:] = np.array([left, top, left + wide, top + high]) / side
    moved_heads = [
        heads.Box(name="where"),
        heads.Bernoulli(name="ink", per_position=True),
        heads.Categorical(name="part", labels=["a", "b"], per_position=True),
        heads.Normal(name="height", per_position=True),
    ]
    lit = (images > 0).astype(np.float32)
    targets = {"where": boxes, "ink": lit, "part": lit[..., 0].astype(np.int32), "height": images / 2}
    after, moved = augment(
        tf.constant(images),
        {name: tf.constant(value) for name, value in targets.items()},
        Augmentation(**settings),
        heads=moved_heads,
        input=GREY,
        key=tf.constant([3, 4]),
    )
    after, targets = after.numpy(), {name: value.numpy() for name, value in moved.items()}
    assert len({image.tobytes() for image in after}) > (1 if "flip" in settings or "turn" in settings else 20)
    np.testing.assert_allclose(targets["height"], after / 2, atol=1e-4)  # both interpolated alike, to rounding
    np.testing.assert_array_equal(targets["part"], targets["ink"][..., 0])
    exact = "rotate" not in settings
    if exact:
        np.testing.assert_array_equal(targets["ink"], after > 0)
    else:  # nearest against bilinear: the borders of half brightness
        assert np.abs(targets["ink"] - (after > 100)).mean() < 0.01
    for image, box in zip(after[..., 0], targets["where"] * side, strict=True):
        rows, columns = np.nonzero(image > (0 if exact else 100))
        seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        grown = (seen - box) * [1, 1, -1, -1]  # how far the box reaches beyond what is lit
        slack = 1e-3 if exact else 1.5
        assert (grown > -slack).all()
        assert (grown < (slack if exact else 1.5 + 12 * np.sin(np.pi / 6))).all()


def test_signals_and_volumes_shift_and_flip_and_colours_stay_in_range() -> None:
    import tensorflow as tf

    rng = np.random.default_rng(1)
    volume = Input(shape=[4, 5, 5, 1], colour="none", resize="none", range=(0.0, 1.0))
    head = heads.Bernoulli(name="inside", per_position=True)
    images = rng.uniform(size=(32, 4, 5, 5, 1)).astype(np.float32)
    inside = tf.constant((images > 0.5).astype(np.float32))

    def change(settings: Augmentation) -> tuple[np.ndarray, np.ndarray]:
        key = tf.constant([1, 2])
        changed, targets = augment(
            tf.constant(images), {"inside": inside}, settings, heads=[head], input=volume, key=key
        )
        return changed.numpy(), targets["inside"].numpy()

    moved, moved_inside = change(Augmentation(shift=1, flip=["depth", "horizontal"], turn=True))
    np.testing.assert_array_equal(moved > 0.5, moved_inside > 0.5)
    assert not np.array_equal(moved, images)
    bright = Augmentation(brightness=0.5, contrast=0.5, noise=0.1)
    changed, unmoved_inside = change(bright)
    assert 0 <= changed.min() < changed.max() <= 1
    np.testing.assert_array_equal(unmoved_inside, inside)
    np.testing.assert_array_equal(change(bright)[0], changed)


def test_an_epoch_holds_every_example_once_in_a_seeded_order_and_can_begin_anywhere() -> None:
    """And every shift up to two pixels occurs."""
    images = np.zeros((200, 9, 9, 1), np.uint8)
    images[:, 4, 4] = 255
    kind = heads.Categorical(name="kind", labels=[str(n) for n in range(200)])
    examples = Examples(tuple(map(str, range(200))), images, {"kind": np.arange(200, dtype=np.int32)})

    def epoch(index: int, first: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
        steps = range(index * 4 + first, index * 4 + 4)
        batches = data.training_batches(
            examples, batch=64, seed=3, steps=steps, augmentation=Augmentation(shift=2), heads=[kind], input=GREY
        )
        return [(batch["images"].numpy(), batch["targets"]["kind"].numpy()) for batch in batches]

    whole = epoch(0)
    assert sorted(np.concatenate([kinds for _, kinds in whole])) == list(range(200))
    places = {tuple(place[1:3]) for images, _ in whole for place in np.argwhere(images)}
    assert places == {(row, column) for row in range(2, 7) for column in range(2, 7)}
    assert [kinds.tolist() for _, kinds in epoch(1)] != [kinds.tolist() for _, kinds in whole]
    for (images, kinds), (images_again, kinds_again) in zip(whole[2:], epoch(0, first=2), strict=True):
        np.testing.assert_array_equal(images, images_again)
        np.testing.assert_array_equal(kinds, kinds_again)
