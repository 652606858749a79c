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
