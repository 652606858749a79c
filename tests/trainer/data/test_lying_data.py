"""Data from which nothing, or something wrong, would be learned are refused on the command line before any training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import DataError
from probrt.trainer import data, heads
from probrt.trainer.config.config import Config
from probrt.trainer.config.settings import DataSettings

CONFIG = """
name = "t"
[data]
folder = "data"
[input]
shape = [8, 8, 1]
colour = "grey"
resize = "bilinear"
range = [0, 255]
[[heads]]
name = "kind"
likelihood = "categorical"
labels = ["a", "b"]
"""
INK = """
[[heads]]
name = "ink"
likelihood = "bernoulli"
per_position = true
"""
GREY = Input(shape=[8, 8, 1], colour="grey", resize="bilinear", range=(0.0, 255.0))
KIND = heads.Categorical(name="kind", labels=["a", "b"])


def config(*chosen: heads.Head, input: Input = GREY, **settings: object) -> Config:
    return Config(name="t", data=DataSettings(folder="data", **settings), input=input, heads=list(chosen or [KIND]))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Returns a folder with a config and 24 different pictures in data/."""
    (tmp_path / "data").mkdir()
    (tmp_path / "config.toml").write_text(CONFIG)
    for index in range(24):
        Image.new("L", (8, 8), 10 * index).save(tmp_path / "data" / f"{index}.png")
    return tmp_path


def write_table(root: Path, name: str = "metadata.csv", **columns: object) -> None:
    """Writes a table of the 24 pictures; a column is a function of the row's index, or a value."""
    lines = [",".join(["file_name", *columns])]
    for index in range(24):
        cells = (value(index) if callable(value) else value for value in columns.values())
        lines.append(",".join([f"{index}.png", *map(str, cells)]))
    (root / "data" / name).write_text("\n".join(lines) + "\n")


def letter(index: int) -> str:
    return "ab"[index % 2]


def test_a_table_under_another_name_is_named_with_the_remedy(root: Path, called: Callable[..., Any]) -> None:
    write_table(root, "labels.csv", kind=letter)
    result = called("train", "config.toml", "--out", "model", cwd=root)
    assert result.code == 2
    assert result.err == (
        "probrt: data: no metadata.csv, metadata.tsv, metadata.jsonl, metadata.parquet; "
        'name the table: data.table = "labels.csv"\n'
    )
    (root / "data" / "truth.tsv").write_text("file\tkind\n")
    result = called("train", "config.toml", "--out", "model", cwd=root)
    assert 'name the table: data.table = "labels.csv" or "truth.tsv"' in result.err
    (root / "config.toml").write_text(CONFIG + INK)
    result = called("train", "config.toml", "--out", "model", cwd=root)
    assert (result.code, 'name the table: data.table = "labels.csv" or "truth.tsv"' in result.err) == (2, True)


def test_flat_folders_without_labels_are_refused(root: Path, called: Callable[..., Any]) -> None:
    result = called("train", "config.toml", "--out", "model", cwd=root)
    assert result.code == 2
    assert "data: no image lies in a folder named after a class (a, b), and there is no metadata.csv" in result.err
    (root / "data" / "a").mkdir()
    (root / "data" / "0.png").rename(root / "data" / "a" / "0.png")
    result = called("train", "config.toml", "--out", "model", cwd=root)
    assert result.code == 2
    assert "lies in no folder named after a class" in result.err
    assert result.err.count("lies in no folder") == 1
    assert "22 more" in result.err
    assert not (root / "model").exists()


def test_a_table_beside_class_folders_is_noted(root: Path) -> None:
    for index in range(24):
        (root / "data" / letter(index)).mkdir(exist_ok=True)
        (root / "data" / f"{index}.png").rename(root / "data" / letter(index) / f"{index}.png")
    (root / "data" / "labels.csv").write_text("x\n")
    assert any("labels.csv is not read" in note for note in data.read_dataset(config(), root).notes)


def test_a_head_without_any_target_is_refused(root: Path, called: Callable[..., Any]) -> None:
    write_table(root, kind=letter, size="")
    (root / "config.toml").write_text(CONFIG + '[[heads]]\nname = "size"\nlikelihood = "normal"\n')
    result = called("train", "config.toml", "--out", "model", cwd=root)
    assert result.code == 2
    assert result.err == (
        "probrt: data/metadata.csv: size: none of the 20 rows of the train split has a target, so the head could learn "
        "nothing; fill the column, or leave out the head\n"
    )
    write_table(
        root,
        kind=lambda index: letter(index) if index < 20 else "",
        split=lambda index: ("train", "validation")[index >= 20],
    )
    assert "kind: no row of the validation split has a target" in notes_of(root, KIND)


def write_masks(root: Path, values: tuple[int, int], mode: str = "L", count: int = 24) -> None:
    (root / "data" / "masks").mkdir(exist_ok=True)
    kind = np.uint16 if mode == "I;16" else np.uint8
    for index in range(count):
        mask = np.full((8, 8), values[0], kind)
        mask[2:4, : 1 + index % 8] = values[1]
        Image.fromarray(mask).save(root / "data" / "masks" / f"{index}.png")
    write_table(root, ink=lambda index: f"masks/{index}.png", split=lambda index: ("train", "validation")[index >= 20])


@pytest.mark.parametrize(("values", "mode"), [((0, 1), "L"), ((0, 255), "I;16"), ((0, 1), "I;16"), ((0, 255), "L")])
def test_what_is_yes_in_a_mask_depends_on_the_values_found(root: Path, values: tuple[int, int], mode: str) -> None:
    write_masks(root, values, mode)
    read = data.read_dataset(config(heads.Bernoulli(name="ink", per_position=True)), root)
    ink = read.splits["train"].targets["ink"]
    assert [int(mask.sum()) for mask in ink] == [2 * (1 + index % 8) for index in range(20)]
    note = f"ink: the highest value of all masks is {values[1]}; above half of it is yes"
    assert (note in read.notes) == ((values, mode) != ((0, 255), "L"))


def test_masks_that_mix_two_scales_are_refused(root: Path, called: Callable[..., Any]) -> None:
    write_masks(root, (0, 255))
    write_masks(root, (0, 1), count=3)
    (root / "config.toml").write_text(CONFIG[: CONFIG.index("[[heads]]")] + INK)
    result = called("train", "config.toml", "--out", "model", cwd=root)
    assert result.code == 2
    assert "row 2: 0.png: ink: the mask holds 0 and 1 where others reach 255" in result.err


def test_class_numbers_for_a_head_of_yes_and_no_are_refused(root: Path, called: Callable[..., Any]) -> None:
    write_masks(root, (1, 3))
    (root / "config.toml").write_text(CONFIG[: CONFIG.index("[[heads]]")] + INK)
    result = called("train", "config.toml", "--out", "model", cwd=root)
    assert result.code == 2
    assert "ink: the masks hold the values 1, 3" in result.err
    assert 'likelihood = "categorical"' in result.err


def test_a_fault_of_many_rows_is_said_once_with_their_number(root: Path, called: Callable[..., Any]) -> None:
    write_table(root, kind=lambda index: "blob" if index % 2 else "a")
    result = called("train", "config.toml", "--out", "model", cwd=root)
    assert result.code == 2
    assert result.err.count("blob") == 1
    assert "12 faults: row 3: 1.png: kind: class 'blob' is none of a, b (and rows 5, 7, 9, 11 and 7 more)" in result.err


def notes_of(root: Path, *chosen: heads.Head, input: Input = GREY) -> str:
    return "\n".join(data.read_dataset(config(*chosen, input=input), root).notes)


def test_good_data_have_no_notes(root: Path) -> None:
    write_table(root, kind=letter, size=lambda index: index)
    assert notes_of(root, KIND, heads.Normal(name="size")) == ""


def test_one_class_only_and_a_constant_target_are_noted(root: Path) -> None:
    write_table(root, kind="a", size=3, flag=1)
    notes = notes_of(root, KIND, heads.Normal(name="size"), heads.Bernoulli(name="flag"))
    assert "kind: every training example is a: the head can learn nothing else" in notes
    assert "size: every training example is 3: the head can learn nothing else" in notes
    assert "flag: every training example is 1: the head can learn nothing else" in notes


def test_masks_that_are_all_empty_are_noted(root: Path) -> None:
    write_masks(root, (0, 0))
    assert "ink: every training mask is empty" in notes_of(root, heads.Bernoulli(name="ink", per_position=True))


def test_the_same_bytes_with_two_labels_or_in_two_splits_are_noted(root: Path) -> None:
    for copy in ("21", "4"):
        (root / "data" / f"{copy}.png").write_bytes((root / "data" / "1.png").read_bytes())
    write_table(root, kind=letter, split=lambda index: ("train", "validation")[index >= 20])
    notes = notes_of(root, KIND)
    assert (
        "1 file is byte for byte in two splits, such as 1.png (train) and 21.png (validation); use data.group to keep "
        "copies together" in notes
    )
    assert "kind: 1 file has the same bytes as another and another target, such as 1.png (b) and 4.png (a)" in notes


def test_colour_pictures_into_a_grey_model_are_noted(root: Path) -> None:
    write_table(root, kind=letter)
    for index in range(24):
        Image.new("RGB", (8, 8), (10 * index, 0, 90)).save(root / "data" / f"{index}.png")
    assert "24 of 24 pictures looked at have colours, and input.colour is grey" in notes_of(root, KIND)
    for index in range(24):  # grey pictures saved in colour
        Image.new("RGB", (8, 8), (10 * index,) * 3).save(root / "data" / f"{index}.png")
    assert notes_of(root, KIND) == ""


def test_twelve_bits_in_files_of_sixteen_are_noted(root: Path) -> None:
    for index in range(24):
        Image.fromarray(np.full((8, 8), 170 * index, np.uint16)).save(root / "data" / f"{index}.png")
    write_table(root, kind=letter)
    deep = Input(shape=[8, 8, 1], colour="grey", resize="bilinear", range=(0.0, 65535.0))
    for input in (GREY, deep):
        assert "no value of the 16-bit pictures is above 3910; set input.range = [0, 4095]" in notes_of(
            root, KIND, input=input
        )
    fitting = Input(shape=[8, 8, 1], colour="grey", resize="bilinear", range=(0.0, 4095.0))
    assert notes_of(root, KIND, input=fitting) == ""


def test_few_rows_are_noted(root: Path) -> None:
    write_table(root, kind=letter)
    lines = (root / "data" / "metadata.csv").read_text().splitlines()
    (root / "data" / "metadata.csv").write_text("\n".join(lines[:13]))
    assert "12 rows are few" in notes_of(root, KIND)


def test_the_usual_folders_of_splits_are_read(root: Path) -> None:
    for split, count in (("train", 16), ("val", 4), ("test", 4)):
        for index in range(count):
            path = root / "data" / split / letter(index) / f"{split}{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 10 * index).save(path)
    for index in range(24):
        (root / "data" / f"{index}.png").unlink()
    read = data.read_dataset(config(), root)
    assert {split: len(examples) for split, examples in read.splits.items()} == {
        "train": 16,
        "validation": 4,
        "test": 4,
    }
    assert read.splits["validation"].files[0] == "val/a/val0.png"
    (root / "data" / "val").rename(root / "elsewhere")
    read = data.read_dataset(config(), root)
    assert {split: len(examples) for split, examples in read.splits.items()} == {
        "train": 14,
        "validation": 2,
        "test": 4,
    }
    assert any("no row is in the validation split: 2 of the training rows are taken" in note for note in read.notes)


def test_the_usual_words_for_splits_are_read(root: Path) -> None:
    words = ["Train", "training", "val", "valid", "dev", "TEST", "testing", "validation"]
    write_table(root, kind=letter, split=lambda index: words[index % 8])
    read = data.read_dataset(config(), root)
    assert {split: len(examples) for split, examples in read.splits.items()} == {
        "train": 6,
        "validation": 12,
        "test": 6,
    }


@pytest.mark.parametrize(
    ("delimiter", "encoding", "name"),
    [
        (";", "utf-8", "metadata.csv"), ("\t", "utf-8", "metadata.csv"), ("\t", "utf-8", "metadata.tsv"),
        (",", "utf-16", "metadata.csv"), (";", "utf-16", "metadata.csv"), (",", "latin-1", "metadata.csv"),
    ],
)  # fmt: skip
def test_tables_of_other_programs_are_read(root: Path, delimiter: str, encoding: str, name: str) -> None:
    (root / "data" / "0.png").rename(root / "data" / "größe.png")
    rows = [["Image Path ", " kind", "remark"]]
    rows += [[f"{index}.png" if index else "größe.png", letter(index), "é"] for index in range(24)]
    (root / "data" / name).write_text("\n".join(delimiter.join(row) for row in rows), encoding=encoding)
    read = data.read_dataset(config(), root)
    assert sum(map(len, read.splits.values())) == 24
    assert any("is not UTF-8" in note for note in read.notes) == (encoding == "latin-1")
    assert any("'Image Path' is taken as file_name" in note for note in read.notes)


@pytest.mark.parametrize("header", ["filename", "image", "path", "Filepath", "img", "File Name", "image_path"])
def test_the_usual_names_of_the_column_of_files_are_taken(root: Path, header: str) -> None:
    write_table(root, kind=letter)
    path = root / "data" / "metadata.csv"
    path.write_text(path.read_text().replace("file_name", header, 1))
    assert len(data.read_dataset(config(), root).splits["train"]) > 10


def test_two_columns_that_could_name_the_files_are_refused(root: Path) -> None:
    write_table(root, kind=letter, path="x")
    path = root / "data" / "metadata.csv"
    path.write_text(path.read_text().replace("file_name", "image", 1))
    with pytest.raises(DataError, match="no column 'file_name'; rename one of image, path"):
        data.read_dataset(config(), root)


def test_a_decimal_comma_and_a_whole_number_with_a_point(root: Path) -> None:
    digit = heads.Categorical(name="digit", labels=["0", "1"])
    write_table(root, digit=lambda index: f"{index % 2}.0")
    assert set(data.read_dataset(config(digit), root).splits["train"].targets["digit"]) == {0, 1}
    rows = [f"{index}.png;{index},5" for index in range(24)]
    (root / "data" / "metadata.csv").write_text("\n".join(["file_name;size", *rows]))
    with pytest.raises(DataError, match=r"row 2: 0\.png: size: is '0,5', not a number; write it with a decimal point"):
        data.read_dataset(config(heads.Normal(name="size")), root)
