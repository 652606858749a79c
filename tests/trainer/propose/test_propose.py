"""`probrt init`: from a folder to a config that the trainer accepts."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from probrt.runtime.errors import DataError
from probrt.trainer.config.config import load_config
from probrt.trainer.data.read import read_dataset
from probrt.trainer.propose.columns import choose_values
from probrt.trainer.propose.copies import find_copies
from probrt.trainer.propose.draft import draft_config
from probrt.trainer.propose.source import find_source


def save_pictures(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        Image.fromarray(np.full((8, 8, 3), (index, 200, 40), np.uint8)).save(folder / f"{index}.png")


@pytest.mark.parametrize(
    ("column", "cells", "likelihood"),
    [
        ("kind", ["cat", "dog"] * 10, "categorical"),
        ("flag", ["0", "1"] * 10, "bernoulli"),
        ("count", [str(index % 4) for index in range(40)], "poisson"),
        ("seeds", ["0", "1", "40", "2", "90", "3", "1", "0"] * 5, "negative_binomial"),
        ("share", [f"{0.01 * index}" for index in range(1, 60)], "beta"),
        ("area", [f"{1.5**index}" for index in range(30)], "log_normal"),
        ("angle", [f"{index / 7 - 2}" for index in range(30)], "normal"),
        ("digit", [str(index % 10) for index in range(60)], "categorical"),
    ],
)
def test_the_values_of_a_column_choose_the_likelihood(column: str, cells: list[str], likelihood: str) -> None:
    choice = choose_values(column, cells)
    assert not isinstance(choice, str)
    assert choice.likelihood == likelihood


@pytest.mark.parametrize("cells", [["a"] * 9, [f"word{index}" for index in range(30)], list(map(str, range(30)))])
def test_a_column_that_can_be_no_target_is_left_out(cells: list[str]) -> None:
    assert isinstance(choose_values("id", cells), str)


@pytest.mark.parametrize("cells", [["-0,5", *(f"{index},5" for index in range(30))], ["2", "-0,5", "2,5"] * 20])
def test_numbers_with_a_decimal_comma_are_no_words(cells: list[str]) -> None:
    reason = choose_values("size", cells)
    assert reason == "its numbers have commas, such as '-0,5'; write them with a decimal point"


def test_an_infinite_number_is_left_to_the_reading_of_the_table() -> None:
    choice = choose_values("dose", [*map(str, range(10, 20)), "inf"])
    assert not isinstance(choice, str)


def test_the_count_of_training_images_is_that_of_the_splits(called: Callable, tmp_path: Path) -> None:
    for label, seed in (("oak", 1), ("elm", 2)):
        save_scenes(tmp_path / "trees" / label, 40, seed)
    draft = draft_config(tmp_path / "trees", tmp_path / "my trees.toml")
    result = called("init", "trees", "--out", "my trees.toml", cwd=tmp_path)
    assert result.code == 0, result.err
    assert "next: probrt train 'my trees.toml'" in result.out
    splits = read_dataset(load_config(tmp_path / "my trees.toml"), tmp_path).splits
    assert draft.train_count == len(splits["train"]) == 56


def test_a_picture_that_cannot_be_read_is_named_with_a_reason(tmp_path: Path) -> None:
    save_pictures(tmp_path / "trees" / "oak", 3)
    save_pictures(tmp_path / "trees" / "elm", 3)
    (tmp_path / "trees" / "oak" / "none.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 7 files .*, such as oak/none.png \(the file is empty\)"):
        draft_config(tmp_path / "trees", tmp_path / "trees.toml")


def test_init_writes_a_config_that_reads_class_folders_with_splits(called: Callable, tmp_path: Path) -> None:
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        for label in ("oak", "elm"):
            save_pictures(tmp_path / "trees" / split / label, count)
    result = called("init", "trees", "--out", "trees.toml", cwd=tmp_path)
    assert result.code == 0, result.err
    assert max(map(len, result.out.splitlines())) <= 80
    config = load_config(tmp_path / "trees.toml")
    assert config.input.shape == [8, 8, 3]
    splits = read_dataset(config, tmp_path).splits
    assert {name: len(examples) for name, examples in splits.items()} == {"train": 24, "validation": 8, "test": 8}
    assert called("init", "trees", "--out", "trees.toml", cwd=tmp_path).code == 2


def test_masks_beside_images_become_a_table_and_do_not_drown_other_heads(called: Callable, tmp_path: Path) -> None:
    for name in ("images", "masks"):
        save_pictures(tmp_path / "cells" / name, 30)
    for path in (tmp_path / "cells" / "masks").iterdir():
        Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(path)
    result = called("init", "cells", "--out", "cells.toml", cwd=tmp_path)
    assert result.code == 0, result.err
    config = load_config(tmp_path / "cells.toml")
    (head,) = config.heads
    assert head.per_position
    assert head.weigh(read_dataset(config, tmp_path).splits["train"].targets["mask"]).weight == 10 / 64


def test_coco_and_yolo_annotations_give_the_same_box(tmp_path: Path) -> None:
    save_pictures(tmp_path / "coco", 2)
    box = {"bbox": [2, 0, 4, 8], "category_id": 3, "segmentation": [[2, 0, 6, 0, 6, 8, 2, 8]]}
    images = [{"id": index, "file_name": f"{index}.png", "width": 8, "height": 8} for index in range(2)]
    content = {"images": images, "annotations": [box | {"image_id": 0}], "categories": [{"id": 3, "name": "leaf"}]}
    (tmp_path / "coco" / "all.json").write_text(json.dumps(content))
    coco = find_source(tmp_path / "coco", tmp_path / "drawn")
    save_pictures(tmp_path / "yolo" / "images", 2)
    (tmp_path / "yolo" / "labels").mkdir()
    (tmp_path / "yolo" / "labels" / "0.txt").write_text("0 0.5 0.5 0.5 1\n")
    yolo = find_source(tmp_path / "yolo", tmp_path / "none")
    for source in (coco, yolo):
        assert [source.rows[0][f"box_{side}"] for side in ("x_min", "y_min", "x_max", "y_max")] == [
            "0.25",
            "0",
            "0.75",
            "1",
        ]
        assert [cells["count"] for cells in source.rows] == ["1", "0"]
    mask = np.asarray(Image.open(tmp_path / "coco" / coco.rows[0]["mask"]))
    assert mask[:, 3:6].all()
    assert not mask[:, :2].any()


def test_a_folder_that_cannot_be_trained_on_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    save_pictures(tmp_path / "one" / "oak", 3)
    save_pictures(tmp_path / "flat", 3)
    save_pictures(tmp_path / "table", 2)
    (tmp_path / "table" / "metadata.csv").write_text("file_name,kind\n0.png,a\ngone.png,b\n")
    for name, reason in (
        ("empty", "no images"),
        ("one", "one class folder"),
        ("flat", "nothing that labels"),
        ("table", "1 of 2 images are not there, such as 'gone.png' in row 3"),
    ):
        with pytest.raises(DataError, match=reason):
            find_source(tmp_path / name, tmp_path / "masks")


def save_scenes(folder: Path, count: int, seed: int) -> None:
    """Saves pictures that differ in their large shapes, as PNG of 32 x 32."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for index in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"{index:02d}.png")


def test_init_puts_every_class_into_every_split_and_copies_into_one(called: Callable, tmp_path: Path) -> None:
    for seed, (label, count) in enumerate((("elm", 40), ("fir", 5), ("oak", 30))):
        save_scenes(tmp_path / "trees" / label, count, seed)
    oak = tmp_path / "trees" / "oak"
    Image.open(oak / "03.png").save(oak / "copy.jpg", quality=80)
    Image.open(oak / "04.png").resize((64, 64)).save(oak / "large.png")
    (oak / "same.png").write_bytes((oak / "05.png").read_bytes())
    result = called("init", "trees", "--out", "trees.toml", cwd=tmp_path)
    assert result.code == 0, result.err
    printed = " ".join(result.out.split())
    assert "3 images are copies of others" in printed
    assert "class_weights" not in printed  # 40 to 5 is not far apart
    config = load_config(tmp_path / "trees.toml")
    assert (config.data.stratify, config.data.group) == ("label", "copies")
    splits = read_dataset(config, tmp_path).splits
    assert set(splits) == {"train", "validation", "test"}
    assert all(set(examples.targets["label"].tolist()) == {0, 1, 2} for examples in splits.values())
    split_of = {name: split for split, examples in splits.items() for name in examples.files}
    for pair in (("03.png", "copy.jpg"), ("04.png", "large.png"), ("05.png", "same.png")):
        assert len({split_of[f"oak/{name}"] for name in pair}) == 1
    assert len(splits["test"]) == pytest.approx(0.15 * 78, abs=2)


def test_copies_and_groups_are_kept_together(called: Callable, tmp_path: Path) -> None:
    """Rows 0 and 1 are copies, rows 1 and 2 of one patient: all three are in one split."""
    save_scenes(tmp_path / "scans", 24, 9)
    (tmp_path / "scans" / "01.png").write_bytes((tmp_path / "scans" / "00.png").read_bytes())
    rows = [f"{index:02d}.png,{'ill' if index % 3 else 'well'},p{max(index, 2)}" for index in range(24)]
    rows[1] = "01.png,well,p2"
    rows[0] = "00.png,well,p0"
    rows = [row.replace(",ill,", ",well,") for row in rows[:22]] + rows[22:]
    (tmp_path / "scans" / "metadata.csv").write_text("file_name,state,patient\n" + "\n".join(rows) + "\n")
    result = called("init", "scans", "--out", "scans.toml", cwd=tmp_path)
    assert result.code == 0, result.err
    assert 'ill has 2 images, well 22: class_weights = "balanced"' in " ".join(result.out.split())
    config = load_config(tmp_path / "scans.toml")
    assert config.data.group == "copies"
    assert "the column copies is new" in " ".join(result.out.split())
    assert [head.name for head in config.heads] == ["state"]
    splits = read_dataset(config, tmp_path).splits
    split_of = {name: split for split, examples in splits.items() for name in examples.files}
    assert split_of["00.png"] == split_of["01.png"] == split_of["02.png"]


def test_different_pictures_and_plain_ones_are_no_copies(tmp_path: Path) -> None:
    save_scenes(tmp_path / "scenes", 60, 3)
    save_pictures(tmp_path / "plain", 20)
    names = [str(path) for folder in ("scenes", "plain") for path in sorted((tmp_path / folder).iterdir())]
    assert find_copies(tmp_path, names) == list(range(80))
    assert find_copies(tmp_path, [names[0], "gone.png", names[0], "gone.png"]) == [0, 1, 0, 3]


def test_a_series_of_one_picture_is_not_kept_in_one_split(called: Callable, tmp_path: Path) -> None:
    save_scenes(tmp_path / "rooms" / "empty", 15, 4)
    save_scenes(tmp_path / "rooms" / "full", 1, 5)
    for index in range(1, 15):
        picture = Image.open(tmp_path / "rooms" / "full" / "00.png")
        picture.save(tmp_path / "rooms" / "full" / f"{index:02d}.jpg", quality=70 + index)
    result = called("init", "rooms", "--out", "rooms.toml", cwd=tmp_path)
    assert result.code == 0, result.err
    assert "15 of 30 images are nearly the same picture" in " ".join(result.out.split())
    assert load_config(tmp_path / "rooms.toml").data.group == ""
